//! Numbers as people read them.

/// With thousands set apart: `1234567.8` is `1,234,568`.
pub(crate) fn grouped(number: f64) -> String {
    if !number.is_finite() {
        return "-".into();
    }
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

/// Three digits that count: `0.0123`, `1.23`, `12.3`, `1,230`.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 || n == 0.0 => grouped(number),
        n if n >= 10.0 => format!("{number:.1}"),
        n if n >= 0.1 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// Microseconds, in the unit that fits.
pub(crate) fn duration(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{} µs", short(us)),
        us if us < 1e6 => format!("{} ms", short(us / 1e3)),
        us => format!("{} s", short(us / 1e6)),
    }
}

/// Bytes, in the unit that fits.
pub(crate) fn memory(bytes: f64) -> String {
    match bytes.abs() {
        b if b < 10_240.0 => format!("{} B", grouped(bytes)),
        b if b < 10_485_760.0 => format!("{} KiB", short(bytes / 1024.0)),
        _ => format!("{} MiB", short(bytes / 1_048_576.0)),
    }
}

/// A share as a distance from a figure: `±12 %`, below one percent with a digit more.
pub(crate) fn plus_minus(share: f64) -> String {
    let percent = share * 100.0;
    let digits = usize::from(percent < 0.95 && percent > 0.0);
    format!("±{percent:.digits$} %")
}

/// `1 round`, `2 rounds`.
pub(crate) fn counted(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_spread_is_not_rounded_to_none() {
        assert_eq!((plus_minus(0.123), plus_minus(0.004)), ("±12 %".into(), "±0.4 %".into()));
        assert_eq!((plus_minus(0.0), plus_minus(0.0099)), ("±0 %".into(), "±1 %".into()));
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0.0, "0"),
            (-0.4, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (1234567.8, "1,234,568"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(f64::NAN), "-");
    }

    #[test]
    fn times_and_memory_take_the_unit_that_fits() {
        assert_eq!(duration(12.34), "12.3 µs");
        assert_eq!(duration(1234.0), "1.23 ms");
        assert_eq!(duration(2_500_000.0), "2.50 s");
        assert_eq!(memory(9_438.0), "9,438 B");
        assert_eq!(memory(3.0 * 1_048_576.0), "3,072 KiB");
        assert_eq!(memory(64.0 * 1_048_576.0), "64.0 MiB");
    }
}

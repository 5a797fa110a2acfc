use std::fmt::Write;

use super::html::Escaped;
use super::palette;
use crate::bench::results::Figure;

/// One bar: a name, the number of its colour, a figure, and what the table says of it.
pub(super) struct Bar<'a> {
    pub name: &'a str,
    pub colour: usize,
    pub figure: Figure,
    pub text: String,
}

/// Horizontal bars up to the median, with a whisker from the lowest round to the highest where there are several.
///
/// Text and boxes, and no picture: so the letters keep their size on a narrow page.
pub(super) fn render(bars: &[Bar<'_>]) -> String {
    let most = bars.iter().map(|bar| bar.figure.max).fold(0.0, f64::max).max(1e-9);
    let share = |value: f64| (100.0 * value / most).clamp(0.0, 100.0);
    let mut html = String::from("<div class=\"bars\">");
    for bar in bars {
        let Figure { median, min, max, rounds } = bar.figure;
        let _ = write!(
            html,
            "<span>{}</span><span class=\"track\"><i class=\"{}\" style=\"width:{:.2}%\"></i>",
            Escaped(bar.name),
            palette::class(bar.colour),
            share(median)
        );
        if rounds > 1 {
            let (from, length) = (share(min), share(max) - share(min));
            let _ = write!(html, "<b style=\"left:{from:.2}%;width:{length:.2}%\"></b>");
        }
        let _ = write!(html, "</span><span>{}</span>", Escaped(&bar.text));
    }
    html.push_str("</div>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(figure: Figure) -> Bar<'static> {
        Bar { name: "a<b", colour: 0, figure, text: "50 ns".into() }
    }

    #[test]
    fn a_bar_is_as_long_as_its_median_and_its_whisker_reaches_from_end_to_end() {
        let html = render(&[bar(Figure { median: 50.0, min: 40.0, max: 200.0, rounds: 3 })]);
        assert!(html.contains("width:25.00%\"></i>") && html.contains("left:20.00%;width:80.00%"), "{html}");
        assert!(html.contains("50 ns") && html.contains("a&lt;b"), "names are escaped");
    }

    #[test]
    fn one_round_has_no_whisker_and_no_bars_are_no_error() {
        assert!(!render(&[bar(Figure { median: 1.0, min: 1.0, max: 1.0, rounds: 1 })]).contains("<b"));
        assert_eq!(render(&[]), "<div class=\"bars\"></div>");
    }
}

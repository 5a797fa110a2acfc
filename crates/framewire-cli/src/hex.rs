//! Bytes as hex digits, and back.

use std::fmt::Write;

use thiserror::Error;

/// Why a text is no hex. Characters are counted from 1.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum HexError {
    /// Neither a digit nor something that may stand between bytes.
    #[error("{c:?} at character {at} is no hex digit")]
    NoDigit { c: char, at: usize },
    /// An odd number of digits in a row.
    #[error("{digit:?} at character {at} stands alone, but each byte is two hex digits")]
    LoneDigit { digit: char, at: usize },
}

/// Two digits per byte, upper or lower case. Blanks, colons and commas may stand between bytes, and `0x` before each run of
/// digits.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut at = 1;
    for run in text.split(|c: char| c.is_whitespace() || c == ':' || c == ',') {
        let digits =
            run.strip_prefix("0x").or_else(|| run.strip_prefix("0X")).filter(|rest| !rest.is_empty());
        match digits {
            Some(digits) => decode_run(digits, at + 2, &mut bytes)?,
            None => decode_run(run, at, &mut bytes)?,
        }
        at += run.chars().count() + 1;
    }
    Ok(bytes)
}

fn decode_run(digits: &str, first: usize, bytes: &mut Vec<u8>) -> Result<(), HexError> {
    let mut half: Option<(u8, char, usize)> = None;
    for (at, c) in (first..).zip(digits.chars()) {
        let value = c.to_digit(16).and_then(|value| u8::try_from(value).ok());
        let value = value.ok_or(HexError::NoDigit { c, at })?;
        match half.take() {
            None => half = Some((value, c, at)),
            Some((high, ..)) => bytes.push(high << 4 | value),
        }
    }
    half.map_or(Ok(()), |(_, digit, at)| Err(HexError::LoneDigit { digit, at }))
}

/// Two lower-case digits per byte, a blank between bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        let separator = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{separator}{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        assert!(decode("").unwrap().is_empty());
        assert_eq!(encode(&[]), "");
    }

    #[test]
    fn hex_is_taken_as_other_tools_print_it() {
        for text in
            ["63640A", "63 64 0a", "63:64:0a", "0x63640a", "0X63, 0x64, 0x0A", " 6364\t0a ", "0x63:64:0x0a"]
        {
            assert_eq!(decode(text).unwrap(), *b"cd\n", "{text:?}");
        }
    }

    #[test]
    fn half_bytes_and_other_characters_are_named_with_their_place() {
        for (text, digit, at) in [("abc", 'c', 3), ("6 364", '6', 1), ("63 0x645", '5', 8), ("0", '0', 1)] {
            assert_eq!(decode(text), Err(HexError::LoneDigit { digit, at }), "{text:?}");
        }
        for (text, c, at) in
            [("0g", 'g', 2), ("+1", '+', 1), ("63 é4", 'é', 4), ("0x", 'x', 2), ("0x0x63", 'x', 4)]
        {
            assert_eq!(decode(text), Err(HexError::NoDigit { c, at }), "{text:?}");
        }
        assert_eq!(
            decode("\u{1b}").unwrap_err().to_string(),
            "'\\u{1b}' at character 1 is no hex digit",
            "nothing that could disturb a terminal"
        );
    }
}

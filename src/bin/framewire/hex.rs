//! Bytes as hex digits, and back.

use std::fmt::Write;

/// Two digits per byte; blanks and colons between bytes are ignored.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    if digits.len() % 2 != 0 {
        return Err(format!("{text:?}: each byte is two digits"));
    }
    let byte = |pair: &[char]| {
        let value = pair.iter().try_fold(0, |value, digit| Some(value * 16 + digit.to_digit(16)?));
        value.and_then(|value| u8::try_from(value).ok()).ok_or_else(|| format!("{text:?} is not hex"))
    };
    digits.chunks(2).map(byte).collect()
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
        assert_eq!(decode("DE:ad be\tef").unwrap(), [0xde, 0xad, 0xbe, 0xef]);
        assert!(decode("").unwrap().is_empty());
        assert_eq!(encode(&[]), "");
    }

    #[test]
    fn half_bytes_and_other_letters_are_refused() {
        assert!(decode("abc").unwrap_err().contains("two digits"));
        assert!(decode("0g").unwrap_err().contains("not hex"));
        assert!(decode("+1").unwrap_err().contains("not hex"));
    }
}

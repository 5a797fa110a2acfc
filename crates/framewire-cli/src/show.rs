use clap::ValueEnum;

use crate::hex;

/// A way to show a packet in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// as text; control characters and what is no UTF-8 escaped
    Text,
    /// as hex digits
    Hex,
    /// its length, hex and text
    Both,
}

impl Show {
    /// A packet that stands alone in its line.
    pub(crate) fn line(self, packet: &[u8], most: usize) -> String {
        match self {
            Self::Text | Self::Hex => self.content(packet, most),
            Self::Both => format!("{:>6}  {}", packet.len(), self.content(packet, most)),
        }
    }

    /// At most `most` bytes of `packet`, with how many were left out; its length stands elsewhere.
    pub(crate) fn content(self, packet: &[u8], most: usize) -> String {
        let start = packet.get(..cut(packet, most)).unwrap_or(packet);
        let mut line = match self {
            Self::Text => text(start),
            Self::Hex => hex::encode(start),
            Self::Both => format!("{}  |{}|", hex::encode(start), text(start)),
        };
        if start.len() < packet.len() {
            line.push_str(&format!(" ... ({} more bytes)", packet.len() - start.len()));
        }
        line
    }
}

/// Where to cut `packet` to at most `most` bytes: before a character of UTF-8, not within.
fn cut(packet: &[u8], most: usize) -> usize {
    if packet.len() <= most {
        return packet.len();
    }
    let is_inside = |at: &usize| packet.get(*at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    (most.saturating_sub(3)..=most).rev().find(|at| !is_inside(at)).unwrap_or(most)
}

/// Text as it is; what would disturb a terminal, is not to be seen or is no text, as `\n`, `\x1b`, `\u{202e}` and the like.
pub(crate) fn text(packet: &[u8]) -> String {
    let mut line = String::with_capacity(packet.len());
    for chunk in packet.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '"' => line.push(c),
                '\0'..='\x7f' => line.extend(std::ascii::escape_default(c as u8).map(char::from)),
                c => line.extend(c.escape_debug()),
            }
        }
        line.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_disturb_a_terminal_and_stays_one_line() {
        assert_eq!(text("grüße\n\x1b[2J\\".as_bytes()), "grüße\\n\\x1b[2J\\\\");
        assert_eq!(text("it's \"so\"\0\x7f".as_bytes()), "it's \"so\"\\x00\\x7f");
        assert_eq!(text(b"a\xff\xfeb"), "a\\xff\\xfeb");
        let unseen = "\u{85}\u{9b}2J\u{202e}\u{2028}\u{200b}\u{feff}\u{301}";
        assert_eq!(text(unseen.as_bytes()), "\\u{85}\\u{9b}2J\\u{202e}\\u{2028}\\u{200b}\\u{feff}\\u{301}");
    }

    #[test]
    fn a_packet_is_shown_as_asked() {
        assert_eq!(Show::Text.line(b"hi", 9), "hi");
        assert_eq!(Show::Hex.line(b"hi", 9), "68 69");
        assert_eq!(Show::Both.line(b"hi", 9), "     2  68 69  |hi|");
        assert_eq!(Show::Both.content(b"hi", 9), "68 69  |hi|");
    }

    #[test]
    fn a_long_packet_is_cut_between_characters_and_says_so() {
        assert_eq!(Show::Text.line(b"abcd", 4), "abcd");
        assert_eq!(Show::Text.line(b"abcde", 4), "abcd ... (1 more bytes)");
        assert_eq!(Show::Text.line("aßß".as_bytes(), 4), "aß ... (2 more bytes)");
        assert_eq!(Show::Hex.line(&[0x80; 6], 5), "80 80 80 80 80 ... (1 more bytes)");
        assert_eq!(Show::Hex.line(b"a", 0), " ... (1 more bytes)");
    }
}

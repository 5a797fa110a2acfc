use std::{
    fmt::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::panic_message;

/// Most bytes of one reason in the log.
const LOGGED: usize = 512;

/// A reason as the log shows it: on one line, cut after [`LOGGED`] bytes, with characters that are not printable
/// escaped. The texts of this crate are short and quote peers in hex only, but a handler's own reason may contain
/// whatever a peer has sent, and its `Display` is user code, which may panic.
pub(crate) struct Logged<'a, T>(pub(crate) &'a T);

impl<T: fmt::Display> fmt::Display for Logged<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line { text: String::new(), is_full: false };
        let said = catch_unwind(AssertUnwindSafe(|| write!(line, "{}", self.0)));
        f.write_str(&line.text)?;
        match said {
            Err(panic) => write!(f, " (then its Display panicked: {})", Logged(&panic_message(panic))),
            Ok(_) if line.is_full => f.write_str("…"),
            Ok(_) => Ok(()),
        }
    }
}

struct Line {
    text: String,
    is_full: bool,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let before = self.text.len();
            match character {
                '"' | '\'' => self.text.push(character),
                _ => self.text.extend(character.escape_debug()),
            }
            if self.is_full || self.text.len() > LOGGED {
                self.text.truncate(before);
                self.is_full = true;
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::{
        error::{CloseReason, Failure},
        framing::FrameError,
    };

    fn handler(why: impl Into<std::borrow::Cow<'static, str>>) -> CloseReason {
        CloseReason::failed(Failure::because(why))
    }

    #[test]
    fn a_reason_in_the_log_is_one_line_of_bounded_length_without_control_characters() {
        let reason = handler("no such \"user\": o'neil\r\nforged line \u{1b}[2J\u{202e}\\");
        assert_eq!(
            Logged(&reason).to_string(),
            "handler: no such \"user\": o'neil\\r\\nforged line \\u{1b}[2J\\u{202e}\\\\"
        );
        for long in ["x", "\n", "ü", "\u{1b}"] {
            let line = Logged(&handler(long.repeat(10_000))).to_string();
            assert!((LOGGED - 8..=LOGGED + '…'.len_utf8()).contains(&line.len()), "{} bytes", line.len());
            assert!(line.ends_with('…') && !line.contains(char::is_control), "{line}");
        }
    }

    #[test]
    fn a_reason_that_panics_when_it_is_shown_says_so_in_the_log() {
        #[derive(Debug)]
        struct Shy;
        impl fmt::Display for Shy {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("I am")?;
                panic!("not\ntelling");
            }
        }
        impl Error for Shy {}
        let line = Logged(&CloseReason::failed(Shy.into())).to_string();
        assert_eq!(line, "handler: I am (then its Display panicked: not\\ntelling)");
    }

    #[test]
    fn what_the_wire_did_is_told_in_few_bytes_all_of_them_printable() {
        let hostile: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        let errors = [
            FrameError::too_long(u64::MAX, u64::MAX, &hostile),
            FrameError::malformed("the length is no number", &hostile),
            FrameError::truncated(&hostile),
            FrameError::truncated(b"GET /\r\n\r\n"),
            FrameError::InvalidDecode { what: "a packet outside of the buffer" },
        ];
        for error in errors {
            let text = CloseReason::from(error).to_string();
            assert!(text.len() < 250 && !text.contains(char::is_control), "{text}");
            assert_eq!(Logged(&text).to_string(), text, "nothing is left to escape");
        }
    }
}

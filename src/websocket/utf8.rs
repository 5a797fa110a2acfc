use super::close::Violation;

/// Checks a text that comes in pieces: RFC 6455, section 8.1. An error shows with the first byte that cannot be.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character whose end has not come.
    held: [u8; 3],
    len: u8,
}

const INVALID: Violation = Violation { code: 1007, what: "a text message is not UTF-8" };

impl Utf8 {
    /// Takes the next bytes of the text.
    #[inline]
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let rest = if self.len == 0 { piece } else { self.complete(piece)? };
        let Err(error) = std::str::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(INVALID);
        }
        let tail = rest.get(error.valid_up_to()..).unwrap_or_default();
        tail.iter().try_for_each(|byte| self.hold(*byte))
    }

    /// The text ends here.
    #[inline]
    pub(super) fn end(&mut self) -> Result<(), Violation> {
        if self.len == 0 { Ok(()) } else { Err(INVALID) }
    }

    /// Takes bytes until the character that has begun is whole; returns the others.
    #[cold]
    fn complete<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], Violation> {
        let mut rest = piece;
        while let Some((byte, behind)) = rest.split_first() {
            rest = behind;
            let len = usize::from(self.len);
            let mut character = [0; 4];
            if let Some((front, next)) =
                character.get_mut(..=len).and_then(|all| all.split_at_mut_checked(len))
            {
                front.copy_from_slice(self.held.get(..len).unwrap_or_default());
                next.copy_from_slice(&[*byte]);
            }
            match std::str::from_utf8(character.get(..=len).unwrap_or_default()) {
                Ok(_) => {
                    self.len = 0;
                    return Ok(rest);
                }
                Err(error) if error.error_len().is_some() => return Err(INVALID),
                Err(_) => self.hold(*byte)?,
            }
        }
        Ok(rest)
    }

    fn hold(&mut self, byte: u8) -> Result<(), Violation> {
        let place = self.held.get_mut(usize::from(self.len)).ok_or(INVALID)?;
        *place = byte;
        self.len += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_text<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut utf8 = Utf8::default();
        pieces.into_iter().all(|piece| utf8.feed(piece).is_ok()) && utf8.end().is_ok()
    }

    #[test]
    fn an_error_shows_with_the_first_byte_that_cannot_be() {
        for (fine, wrong) in
            [(&b"\xf4"[..], 0x90), (b"\xce\xba\xe1", 0x7f), (b"\xed", 0xa0), (b"\xf0\x9f\x98", 0xc0)]
        {
            let mut utf8 = Utf8::default();
            for byte in fine {
                assert_eq!(utf8.feed(&[*byte]), Ok(()));
            }
            assert_eq!(utf8.feed(&[wrong]), Err(INVALID));
        }
    }

    proptest! {
        #[test]
        fn a_text_in_pieces_is_judged_as_one(
            text in "\\PC{0,12}",
            noise in proptest::collection::vec(any::<u8>(), 0..4),
            at in any::<proptest::sample::Index>(),
            cuts in proptest::collection::vec(1_usize..5, 40),
        ) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, noise);
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            prop_assert_eq!(is_text(pieces), std::str::from_utf8(&bytes).is_ok());
            prop_assert_eq!(is_text(bytes.chunks(1)), std::str::from_utf8(&bytes).is_ok());
        }
    }
}

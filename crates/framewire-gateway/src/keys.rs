use std::{fmt, fs, path::Path};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

/// How a server proves that it knows a key.
///
/// | | challenge of the gateway | answer of the server |
/// |---|---|---|
/// | `Md5` | 8 random bytes | MD5(challenge, key), server ID: 20 bytes |
/// | `HmacSha256` | 16 random bytes | nonce (16 random bytes), server ID, HMAC-SHA-256(key, challenge, nonce, server ID): 52 bytes |
///
/// Byte strings follow each other without separators; the server ID is a little-endian `u32`. The gateway does not reply
/// to a right answer, and ends the link after a wrong one.
///
/// `Md5` is what existing servers speak. It proves that the key is known, but binds neither the server's ID nor anything
/// of the server's: a peer in the middle can change the ID. `HmacSha256` (RFC 2104, FIPS 180-4) binds both. Neither
/// encrypts anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// The documented dialect.
    #[default]
    Md5,
    /// The dialect of this gateway, to be required where all servers speak it.
    HmacSha256,
}

/// The longest challenge, in bytes.
pub(crate) const MAX_CHALLENGE: usize = 16;
const NONCE: usize = 16;
const ID: usize = 4;

impl Dialect {
    pub(crate) fn challenge_len(self) -> usize {
        match self {
            Self::Md5 => 8,
            Self::HmacSha256 => MAX_CHALLENGE,
        }
    }

    pub(crate) fn answer_len(self) -> usize {
        match self {
            Self::Md5 => 16 + ID,
            Self::HmacSha256 => NONCE + ID + 32,
        }
    }

    /// Returns what a server with this ID answers to a challenge. `nonce` is used by `HmacSha256` only, and must be
    /// random there.
    #[must_use]
    pub fn answer(self, challenge: &[u8], nonce: &[u8; 16], key: &[u8], server: u32) -> Vec<u8> {
        let id = server.to_le_bytes();
        match self {
            Self::Md5 => [&md5(challenge, key)[..], &id].concat(),
            Self::HmacSha256 => [&nonce[..], &id, &hmac(key, challenge, nonce, &id)].concat(),
        }
    }

    /// Returns the server's ID if one of the keys gives this answer. Takes as long for each key, whether it is right or
    /// wrong.
    pub(crate) fn verify(self, challenge: &[u8], answer: &[u8], keys: &Keys) -> Option<u32> {
        if answer.len() != self.answer_len() {
            return None;
        }
        let mut is_right = Choice::from(0);
        let id = match self {
            Self::Md5 => {
                let (digest, id) = answer.split_at(16);
                for key in &keys.0 {
                    is_right |= md5(challenge, key).ct_eq(digest);
                }
                id
            }
            Self::HmacSha256 => {
                let (nonce, rest) = answer.split_at(NONCE);
                let (id, mac) = rest.split_at(ID);
                for key in &keys.0 {
                    is_right |= hmac(key, challenge, nonce, id).ct_eq(mac);
                }
                id
            }
        };
        let id = u32::from_le_bytes(id.try_into().ok()?);
        bool::from(is_right).then_some(u32::conditional_select(&0, &id, is_right))
    }
}

fn md5(challenge: &[u8], key: &[u8]) -> [u8; 16] {
    Md5::new().chain_update(challenge).chain_update(key).finalize().into()
}

fn hmac(key: &[u8], challenge: &[u8], nonce: &[u8], id: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.chain_update(challenge).chain_update(nonce).chain_update(id).finalize().into_bytes().into()
}

/// The keys of servers. All of them are valid at the same time, so that a key can be replaced while servers with the old
/// one are still there. Its `Debug` shows none of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<Vec<u8>>);

/// Keys that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read the keys in {path}: {source}")]
    #[non_exhaustive]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no key.
    #[error("there is no key: give at least one line that is not empty")]
    None,
    /// A key is empty: every peer knows it.
    #[error("an empty key lets every peer be a server: ask for it by name if that is meant")]
    Empty,
    /// What follows `hex:` is no hexadecimal.
    #[error("line {0} of the keys: after `hex:` an even number of hexadecimal digits is needed")]
    NotHex(usize),
}

impl Keys {
    /// Takes keys of raw bytes.
    ///
    /// # Errors
    /// [`KeysError::None`] without a key, [`KeysError::Empty`] if one is empty.
    pub fn new<K: Into<Vec<u8>>>(keys: impl IntoIterator<Item = K>) -> Result<Self, KeysError> {
        let keys: Vec<Vec<u8>> = keys.into_iter().map(Into::into).collect();
        if keys.is_empty() {
            return Err(KeysError::None);
        }
        if keys.iter().any(Vec::is_empty) {
            return Err(KeysError::Empty);
        }
        Ok(Self(keys))
    }

    /// The empty key, which lets every peer be a server. For tests, and for networks where nobody else can connect.
    #[must_use]
    pub fn open_to_all() -> Self {
        Self(vec![Vec::new()])
    }

    /// Reads keys from a file: one on each line, as its bytes or, behind `hex:`, in hexadecimal. Empty lines and lines
    /// that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`KeysError`]: the file cannot be read, or holds no usable key.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text =
            fs::read(path).map_err(|source| KeysError::Read { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            keys.push(match line.strip_prefix(b"hex:") {
                Some(digits) => from_hex(digits).ok_or(KeysError::NotHex(number + 1))?,
                None => line.to_vec(),
            });
        }
        Self::new(keys)
    }
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
        _ => None,
    });
    pairs.collect()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_md5_dialect_is_the_documented_one() {
        // printf '\1\2\3\4\5\6\7\10secret' | md5sum
        let answer = Dialect::Md5.answer(&[1, 2, 3, 4, 5, 6, 7, 8], &[0; 16], b"secret", 0x0102_0304);
        let digest = Md5::digest(b"\x01\x02\x03\x04\x05\x06\x07\x08secret");
        assert_eq!(answer, [&digest[..], &[4, 3, 2, 1]].concat());
    }

    #[test]
    fn the_primitives_are_those_of_their_standards() {
        // RFC 1321, A.5, and RFC 4231, test case 2.
        assert_eq!(md5(b"message ", b"digest")[..], from_hex(b"f96b697d7cb7938d525a2f31aaf161d0").unwrap());
        let mac = hmac(b"Jefe", b"what do ya ", b"want for ", b"nothing?");
        let expected = b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(mac[..], from_hex(expected).unwrap());
    }

    #[test]
    fn any_of_the_keys_will_do_and_everything_that_is_bound_counts() {
        let keys = Keys::new(["old", "new"]).unwrap();
        for dialect in [Dialect::Md5, Dialect::HmacSha256] {
            let challenge = &[7; MAX_CHALLENGE][..dialect.challenge_len()];
            for key in ["old", "new"] {
                let answer = dialect.answer(challenge, &[9; 16], key.as_bytes(), 42);
                assert_eq!(answer.len(), dialect.answer_len());
                assert_eq!(dialect.verify(challenge, &answer, &keys), Some(42));
                assert_eq!(dialect.verify(&vec![8; challenge.len()], &answer, &keys), None);
                assert_eq!(dialect.verify(challenge, &answer[1..], &keys), None);
                let bound = if dialect == Dialect::Md5 { 16 } else { answer.len() };
                for at in 0..bound {
                    let mut forged = answer.clone();
                    forged[at] ^= 1;
                    assert_eq!(dialect.verify(challenge, &forged, &keys), None, "{dialect:?}, byte {at}");
                }
            }
            let answer = dialect.answer(challenge, &[9; 16], b"other", 42);
            assert_eq!(dialect.verify(challenge, &answer, &keys), None);
        }
    }

    #[test]
    fn a_file_has_a_key_on_each_line() {
        let keys = Keys::parse(b"# comment\r\nfirst key\r\n\nhex:00ff7A\n").unwrap();
        assert_eq!(keys, Keys::new([&b"first key"[..], &[0, 0xff, 0x7a]]).unwrap());
        assert_eq!(format!("{keys:?}"), "Keys(2)");
    }

    #[test]
    fn a_file_without_a_usable_key_says_what_is_wrong() {
        assert!(matches!(Keys::parse(b"#\n\n"), Err(KeysError::None)));
        assert!(matches!(Keys::parse(b"a\nhex:0\n"), Err(KeysError::NotHex(2))));
        assert!(matches!(Keys::parse(b"a\nb\nhex:zz\n"), Err(KeysError::NotHex(3))));
        assert!(matches!(Keys::parse(b"hex:\n"), Err(KeysError::Empty)));
        let error = Keys::read(Path::new("/nowhere/keys")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the keys in /nowhere/keys: "), "{error}");
    }
}

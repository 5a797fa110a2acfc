use std::str::FromStr;

use bytes::BytesMut;
use framewire::{
    Decoded, EncodeError, FixedLength, FrameError, Framing, LengthPrefix, Netstring, Raw, Separator,
    UntilEof, VarintPrefix,
};

/// What `--framing` accepts, for the help.
pub(crate) const HELP: &str = "\
Framings (SPEC):
  u8, u16-be, u16-le, u24-be, u24-le, u32-be, u32-le, u64-be, u64-le
             a length of that width in front of each packet, big- or
             little-endian
  varint     a LEB128 length of up to 32 bits in front; varint64: of up to 64
  lines      packets end with a line feed; a carriage return before it is
             dropped
  crlf, nul  packets end with CR LF, or with a zero byte
  sep:HEX    packets end with these bytes, as in sep:0d0a0d0a
  fixed:N    packets of N bytes
  netstring  5:hello,
  raw        whatever a read brings
  eof        everything until the end of the stream is one packet
Hyphens may be left out: u32be is u32-be.";

/// The same, for an error.
const NAMES: &str = "u8, u16-be (or -le), u24-be, u32-be, u64-be, varint, varint64, lines, crlf, nul, sep:HEX, fixed:N, \
                     netstring, raw and eof";

/// A framing that was named on the command line.
#[derive(Debug, Clone)]
pub(crate) enum FramingSpec {
    Length(LengthPrefix),
    Varint(VarintPrefix),
    Separator(Separator),
    Fixed(FixedLength),
    Netstring(Netstring),
    Raw(Raw),
    UntilEof(UntilEof),
}

impl FromStr for FramingSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        match lower.split_once(':') {
            Some(("sep", hex)) => {
                let bytes = crate::hex::decode(hex).map_err(|error| error.to_string())?;
                Separator::bytes(bytes).map(Self::Separator).map_err(|error| error.to_string())
            }
            Some(("fixed", len)) => {
                let len = len.parse().map_err(|_| format!("{len:?} is no number of bytes"))?;
                FixedLength::new(len).map(Self::Fixed).map_err(|error| error.to_string())
            }
            Some((name, _)) => Err(format!("{name:?} takes nothing after a colon; sep:HEX and fixed:N do")),
            None => Self::plain(&lower.replace(['-', '_'], "")),
        }
    }
}

impl FramingSpec {
    /// A name without hyphens and without an argument.
    fn plain(name: &str) -> Result<Self, String> {
        Ok(match name {
            "u8" => Self::Length(LengthPrefix::u8()),
            "u16be" | "u16" => Self::Length(LengthPrefix::u16_be()),
            "u16le" => Self::Length(LengthPrefix::u16_le()),
            "u24be" | "u24" => Self::Length(LengthPrefix::u24_be()),
            "u24le" => Self::Length(LengthPrefix::u24_le()),
            "u32be" | "u32" => Self::Length(LengthPrefix::u32_be()),
            "u32le" => Self::Length(LengthPrefix::u32_le()),
            "u64be" | "u64" => Self::Length(LengthPrefix::u64_be()),
            "u64le" => Self::Length(LengthPrefix::u64_le()),
            "varint" | "varint32" => Self::Varint(VarintPrefix::u32()),
            "varint64" => Self::Varint(VarintPrefix::u64()),
            "lines" | "line" | "lf" => Self::Separator(Separator::lines()),
            "crlf" => Self::Separator(Separator::crlf()),
            "nul" => Self::Separator(Separator::nul()),
            "netstring" => Self::Netstring(Netstring::new()),
            "raw" => Self::Raw(Raw::new()),
            "eof" => Self::UntilEof(UntilEof::new()),
            "sep" => return Err("which separator? sep:HEX, as in sep:0d0a".into()),
            "fixed" => return Err("how many bytes? fixed:N, as in fixed:16".into()),
            other => {
                return Err(format!("there is no framing {other:?}; there are {NAMES}"));
            }
        })
    }

    /// The same framing with another maximum, where it has one; bytes of a packet.
    pub(crate) fn max(self, bytes: usize) -> Self {
        match self {
            Self::Length(framing) => Self::Length(framing.max(bytes)),
            Self::Varint(framing) => Self::Varint(framing.max(bytes)),
            Self::Separator(framing) => Self::Separator(framing.max(bytes)),
            Self::Netstring(framing) => Self::Netstring(framing.max(bytes)),
            Self::Raw(framing) => Self::Raw(framing.max(bytes)),
            Self::UntilEof(framing) => Self::UntilEof(framing.max(bytes)),
            Self::Fixed(framing) => Self::Fixed(framing),
        }
    }

    fn inner(&self) -> &dyn Framing {
        match self {
            Self::Length(framing) => framing,
            Self::Varint(framing) => framing,
            Self::Separator(framing) => framing,
            Self::Fixed(framing) => framing,
            Self::Netstring(framing) => framing,
            Self::Raw(framing) => framing,
            Self::UntilEof(framing) => framing,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Framing {
        match self {
            Self::Length(framing) => framing,
            Self::Varint(framing) => framing,
            Self::Separator(framing) => framing,
            Self::Fixed(framing) => framing,
            Self::Netstring(framing) => framing,
            Self::Raw(framing) => framing,
            Self::UntilEof(framing) => framing,
        }
    }
}

impl Framing for FramingSpec {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.inner_mut().decode(buf)
    }

    fn decode_eof(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.inner_mut().decode_eof(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.inner().encode(payload, out)
    }

    fn offer_max(&mut self, max: usize) {
        self.inner_mut().offer_max(max);
    }

    fn max_frame(&self) -> Option<usize> {
        self.inner().max_frame()
    }

    fn is_discarding(&self) -> bool {
        self.inner().is_discarding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(spec: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        spec.parse::<FramingSpec>().unwrap().encode(b"abc", &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn every_name_stands_for_its_framing() {
        for (spec, wire) in [
            ("u8", &b"\x03abc"[..]),
            ("u16-be", b"\0\x03abc"),
            ("u16-le", b"\x03\0abc"),
            ("u24-be", b"\0\0\x03abc"),
            ("u24-le", b"\x03\0\0abc"),
            ("u32-be", b"\0\0\0\x03abc"),
            ("u32-le", b"\x03\0\0\0abc"),
            ("u64-be", b"\0\0\0\0\0\0\0\x03abc"),
            ("u64-le", b"\x03\0\0\0\0\0\0\0abc"),
            ("varint", b"\x03abc"),
            ("varint64", b"\x03abc"),
            ("lines", b"abc\n"),
            ("crlf", b"abc\r\n"),
            ("nul", b"abc\0"),
            ("sep:0d0a0D0A", b"abc\r\n\r\n"),
            ("fixed:3", b"abc"),
            ("netstring", b"3:abc,"),
            ("raw", b"abc"),
            ("eof", b"abc"),
        ] {
            assert_eq!(encoded(spec), wire, "{spec}");
            assert_eq!(encoded(&spec.replace('-', "").to_uppercase()), wire, "{spec} without hyphens");
        }
    }

    #[test]
    fn what_is_no_framing_is_refused_with_a_hint() {
        for (spec, hint) in [
            ("u31-be", "there is no framing"),
            ("", "there is no framing"),
            ("sep", "sep:HEX"),
            ("sep:", "separator"),
            ("sep:0", "two hex digits"),
            ("sep:zz", "hex"),
            ("fixed:0", ""),
            ("fixed:x", "no number"),
            ("u8:4", "colon"),
        ] {
            let error = spec.parse::<FramingSpec>().unwrap_err();
            assert!(error.contains(hint), "{spec}: {error}");
        }
    }
}

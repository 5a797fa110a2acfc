use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    crc32c::crc32c,
    header::{FIXED, MOST_UNIQUE_ID, ProxyHeader, SIGNATURE, Tlvs, UNIX_PATH, Version},
};
use crate::{addr::Addr, error::LayerError};

/// What a line of version 1 begins with.
const PROXY: &[u8] = b"PROXY ";
/// The longest line, with its CR and LF.
const LONGEST_LINE: usize = 107;

/// Reads a header of either version, of `most` bytes at most, from the front of `wire`. Returns it with its length, or
/// `None` as long as it is incomplete.
///
/// # Errors
/// If it is no such header, as soon as that is certain.
pub(super) fn parse(wire: &[u8], most: usize) -> Result<Option<(ProxyHeader, usize)>, LayerError> {
    let begins = |with: &[u8]| wire.iter().zip(with).all(|(said, due)| said == due);
    let outcome = if begins(&SIGNATURE) && !wire.is_empty() {
        binary(wire, most)
    } else if begins(PROXY) {
        line(wire)
    } else {
        Err("no PROXY header")
    };
    outcome.map_err(|what| LayerError::malformed(what, wire))
}

/// A header, or what is wrong with it.
type Parsed = Result<Option<(ProxyHeader, usize)>, &'static str>;

fn line(wire: &[u8]) -> Parsed {
    let shown = wire.get(..LONGEST_LINE).unwrap_or(wire);
    let Some(end) = shown.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if shown.len() < LONGEST_LINE {
            Ok(None)
        } else {
            Err("a PROXY line is longer than 107 bytes")
        };
    };
    match shown.get(end..) {
        Some([b'\r', b'\n', ..]) => {}
        Some([b'\r']) if end + 2 <= LONGEST_LINE => return Ok(None),
        Some([b'\r']) => return Err("a PROXY line is longer than 107 bytes"),
        _ => return Err("a PROXY line does not end in CR and LF"),
    }
    let text = shown.get(PROXY.len()..end).and_then(|text| std::str::from_utf8(text).ok());
    let text = text.filter(|text| text.is_ascii()).ok_or("a PROXY line has bytes that are no ASCII")?;
    let (protocol, fields) = text.split_once(' ').unwrap_or((text, ""));
    let ends = match protocol {
        "TCP4" => Some(endpoints::<Ipv4Addr>(fields, "an address of a PROXY line is no IPv4 address")?),
        "TCP6" => Some(endpoints::<Ipv6Addr>(fields, "an address of a PROXY line is no IPv6 address")?),
        "UNKNOWN" => None,
        _ => return Err("the protocol of a PROXY line is none of TCP4, TCP6 and UNKNOWN"),
    };
    Ok(Some((ProxyHeader::new(Version::One, ends), end + 2)))
}

fn endpoints<A: std::str::FromStr + Into<IpAddr>>(
    fields: &str,
    no_address: &'static str,
) -> Result<(Addr, Addr), &'static str> {
    let mut fields = fields.split(' ');
    let mut next = || fields.next().ok_or("a PROXY line lacks an address or a port");
    let [source, destination, from, to] = [next()?, next()?, next()?, next()?];
    if fields.next().is_some() {
        return Err("a PROXY line has more than two addresses and two ports");
    }
    let [source, destination] = [source, destination].map(|text| text.parse::<A>().map_err(|_| no_address));
    let end = |ip: A, port: u16| Addr::Ip(SocketAddr::new(ip.into(), port));
    let (source, destination) = (source?, destination?);
    Ok((end(source, port(from)?), end(destination, port(to)?)))
}

fn port(text: &str) -> Result<u16, &'static str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let port = text.parse().ok().filter(|_| is_plain);
    port.ok_or("a port of a PROXY line is no number from 0 to 65535 without leading zeros")
}

fn binary(wire: &[u8], most: usize) -> Parsed {
    let command = match wire.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(byte) if byte >> 4 != 2 => return Err("a binary PROXY header is not of version 2"),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err("the command of a PROXY header is neither LOCAL nor PROXY"),
    };
    let Some([family, high, low]) = wire.get(SIGNATURE.len() + 1..FIXED) else { return Ok(None) };
    let is_known = family >> 4 <= 3 && family & 0x0f <= 2;
    if command == Command::Proxy && !is_known {
        return Err("a PROXY header has an unknown family or protocol");
    }
    let len = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if len > most {
        return Err("a PROXY header is longer than the server takes");
    }
    let (Some(header), Some(block)) = (wire.get(..len), wire.get(FIXED..len)) else { return Ok(None) };
    let mut parsed = ProxyHeader::new(Version::Two, None);
    if command == Command::Local {
        parsed.is_local = true;
        return Ok(Some((parsed, len)));
    }
    if let Some((ends, tlvs)) = addresses(*family, block)? {
        parsed.ends = Some(ends);
        take_tlvs(&mut parsed, header, tlvs)?;
    }
    Ok(Some((parsed, len)))
}

#[derive(PartialEq, Eq)]
enum Command {
    Local,
    Proxy,
}

/// Both ends, and what is behind them.
type Addresses<'a> = Option<((Addr, Addr), &'a [u8])>;

/// Splits the block into addresses and TLVs; `None` if the family or the protocol is unspecified, so that the block
/// is to be ignored.
fn addresses(family: u8, block: &[u8]) -> Result<Addresses<'_>, &'static str> {
    let short = "a PROXY header is too short for its addresses";
    Ok(match family {
        0x11 | 0x12 => {
            let (addresses, tlvs) = block.split_first_chunk::<12>().ok_or(short)?;
            let [s0, s1, s2, s3, d0, d1, d2, d3, ports @ ..] = *addresses;
            Some((ends(Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3), ports), tlvs))
        }
        0x21 | 0x22 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (ports, tlvs) = rest.split_first_chunk::<4>().ok_or(short)?;
            Some((ends(Ipv6Addr::from(*source), Ipv6Addr::from(*destination), *ports), tlvs))
        }
        0x31 | 0x32 => {
            let (source, rest) = block.split_first_chunk::<UNIX_PATH>().ok_or(short)?;
            let (destination, tlvs) = rest.split_first_chunk::<UNIX_PATH>().ok_or(short)?;
            Some(((unix(source), unix(destination)), tlvs))
        }
        _ => None,
    })
}

fn ends(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, ports: [u8; 4]) -> (Addr, Addr) {
    let [s0, s1, d0, d1] = ports;
    let end = |ip: IpAddr, port: [u8; 2]| Addr::Ip(SocketAddr::new(ip, u16::from_be_bytes(port)));
    (end(source.into(), [s0, s1]), end(destination.into(), [d0, d1]))
}

/// A path that fills its field has no zero at its end. An abstract name, which begins with one, counts as none.
fn unix(field: &[u8; UNIX_PATH]) -> Addr {
    let len = field.iter().position(|byte| *byte == 0).unwrap_or(UNIX_PATH);
    let path = field.get(..len).filter(|path| !path.is_empty());
    Addr::Unix(path.map(path_of))
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    OsStr::from_bytes(bytes).into()
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// Checks the TLVs at the end of `header`, and keeps all but the checksum.
fn take_tlvs(parsed: &mut ProxyHeader, header: &[u8], tlvs: &[u8]) -> Result<(), &'static str> {
    let mut at = header.len() - tlvs.len();
    let mut kept = Vec::new();
    for tlv in Tlvs(tlvs) {
        let (kind, value) = tlv.map_err(|_| "a TLV reaches beyond its PROXY header")?;
        let (start, end) = (at, at + 3 + value.len());
        at = end;
        match kind {
            // To check each of many would take long.
            ProxyHeader::CRC32C if parsed.has_checksum => return Err("a PROXY header has two checksums"),
            ProxyHeader::CRC32C => {
                let sum: [u8; 4] = value.try_into().map_err(|_| "a checksum is not of 4 bytes")?;
                let bytes = header.iter().enumerate();
                let zeroed = bytes.map(|(i, byte)| if (start + 3..end).contains(&i) { 0 } else { *byte });
                if crc32c(zeroed) != u32::from_be_bytes(sum) {
                    return Err("the checksum of a PROXY header is wrong");
                }
                parsed.has_checksum = true;
                continue;
            }
            ProxyHeader::UNIQUE_ID if value.len() > MOST_UNIQUE_ID => {
                return Err("the unique id of a PROXY header is longer than 128 bytes");
            }
            _ => {}
        }
        kept.extend_from_slice(header.get(start..end).unwrap_or_default());
    }
    parsed.tlvs = kept;
    Ok(())
}

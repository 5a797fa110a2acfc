use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use thiserror::Error;

use super::Addr;

/// Stands for Unix sockets in a list of networks.
const UNIX: &str = "unix:";

/// A range of IP addresses in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    addr: IpAddr,
    /// Leading bits that are common to all of its addresses.
    prefix: u8,
}

/// A text names no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// What is before the slash is no IP address.
    #[error("{0:?} is no network: give 10.0.0.0/8, 2001:db8::/32, one IP address, or unix: for Unix sockets")]
    Address(String),
    /// What is behind the slash is no number of bits that such an address has.
    #[error("{text:?} is no network: the prefix is a number from 0 to {most}")]
    #[non_exhaustive]
    Prefix {
        /// The text.
        text: String,
        /// The bits of such an address.
        most: u8,
    },
    /// The address has bits behind the prefix.
    #[error("{text:?} names an address within a network; give {network}, or the address without a prefix")]
    #[non_exhaustive]
    HostBits {
        /// The text.
        text: String,
        /// The network in which that address is.
        network: String,
    },
}

impl Network {
    fn of(addr: IpAddr) -> Self {
        Self { addr, prefix: bits(addr) }
    }

    /// The network of this prefix in which the address is.
    fn around(addr: IpAddr, prefix: u8) -> Self {
        let addr = match addr {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & mask(prefix, 32) as u32).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & mask(prefix, 128)).into(),
        };
        Self { addr, prefix }
    }

    /// An IPv4 address within IPv6 (`::ffff:10.0.0.1`) counts as the former.
    fn contains(&self, ip: IpAddr) -> bool {
        Self::around(ip.to_canonical(), self.prefix) == *self
    }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// The `prefix` leading bits of `width`.
fn mask(prefix: u8, width: u8) -> u128 {
    let behind = u32::from(width.saturating_sub(prefix));
    u128::MAX.checked_shl(behind).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (addr, prefix) = text.split_once('/').map_or((text, None), |(addr, prefix)| (addr, Some(prefix)));
        let addr: IpAddr = addr.parse().map_err(|_| NetworkError::Address(text.to_owned()))?;
        let Some(prefix) = prefix else { return Ok(Self::of(addr.to_canonical())) };
        let most = bits(addr);
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let bits = prefix.parse().ok().filter(|bits| is_number && *bits <= most);
        let Some(bits) = bits else { return Err(NetworkError::Prefix { text: text.to_owned(), most }) };
        let (addr, bits) = match addr {
            // As `contains` has it, which would never find one of these.
            IpAddr::V6(v6) if bits >= 96 => {
                v6.to_ipv4_mapped().map_or((addr, bits), |v4| (IpAddr::from(v4), bits - 96))
            }
            _ => (addr, bits),
        };
        let network = Self::around(addr, bits);
        if network.addr != addr {
            return Err(NetworkError::HostBits { text: text.to_owned(), network: network.to_string() });
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// Networks, and perhaps all Unix sockets. Clones share the list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Networks {
    listed: Arc<[Network]>,
    has_unix: bool,
}

impl Networks {
    /// Reads a list of texts, each a network or `unix:`.
    pub(crate) fn parse(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, NetworkError> {
        let (mut listed, mut has_unix) = (Vec::new(), false);
        for text in texts {
            match text.as_ref() {
                UNIX => has_unix = true,
                network => listed.push(network.parse()?),
            }
        }
        Ok(Self { listed: listed.into(), has_unix })
    }

    pub(crate) fn contain(&self, addr: &Addr) -> bool {
        match addr.ip() {
            Some(ip) => self.listed.iter().any(|network| network.contains(ip)),
            None => self.has_unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() -> Result<(), Box<dyn std::error::Error>> {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                vec!["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"],
                vec!["11.0.0.0", "::10.0.0.1"],
            ),
            ("192.168.4.0/22", vec!["192.168.7.255"], vec!["192.168.8.0", "192.168.3.255"]),
            ("0.0.0.0/0", vec!["1.2.3.4", "255.255.255.255"], vec!["::1"]),
            ("127.0.0.1", vec!["127.0.0.1", "::ffff:127.0.0.1"], vec!["127.0.0.2"]),
            ("127.0.0.1/32", vec!["127.0.0.1"], vec!["127.0.0.0"]),
            ("2001:db8::/32", vec!["2001:db8:ffff::1"], vec!["2001:db9::", "10.0.0.1"]),
            ("fe80::/10", vec!["febf::1"], vec!["fec0::1"]),
            ("::/0", vec!["::", "ffff::"], vec!["10.0.0.1"]),
            ("::1", vec!["::1"], vec!["::", "::2"]),
            ("::ffff:10.0.0.0/104", vec!["10.1.2.3", "::ffff:10.1.2.3"], vec!["11.0.0.0", "::ffff:11.0.0.0"]),
            ("::ffff:0:0/96", vec!["1.2.3.4"], vec!["::1", "::1.2.3.4"]),
            ("::ffff:10.0.0.1", vec!["10.0.0.1"], vec!["10.0.0.2"]),
        ] {
            let parsed: Network = network.parse()?;
            for ip in inside {
                assert!(parsed.contains(ip.parse()?), "{network} holds {ip}");
            }
            for ip in outside {
                assert!(!parsed.contains(ip.parse()?), "{network} does not hold {ip}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_would_be() {
        for (text, said) in [
            ("", "\"\" is no network: give 10.0.0.0/8"),
            ("10.0.0/8", "is no network: give 10.0.0.0/8"),
            ("localhost", "is no network: give 10.0.0.0/8"),
            ("10.0.0.0:80", "is no network: give 10.0.0.0/8"),
            ("10.0.0.0/33", "the prefix is a number from 0 to 32"),
            ("10.0.0.0/", "the prefix is a number from 0 to 32"),
            ("10.0.0.0/+8", "the prefix is a number from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "the prefix is a number from 0 to 32"),
            ("::ffff:10.0.0.1/104", "give 10.0.0.0/8, or the address without a prefix"),
            ("::/129", "the prefix is a number from 0 to 128"),
            ("10.0.0.1/8", "give 10.0.0.0/8, or the address without a prefix"),
            ("2001:db8::1/32", "give 2001:db8::/32, or the address without a prefix"),
        ] {
            let error = Networks::parse([text]).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn unix_sockets_are_in_a_list_that_says_so() -> Result<(), Box<dyn std::error::Error>> {
        let (unix, v4) = (Addr::Unix(None), Addr::Ip("10.0.0.1:7".parse()?));
        let both = Networks::parse(["unix:", "10.0.0.0/8"])?;
        assert!(both.contain(&unix) && both.contain(&v4));
        let only = Networks::parse([String::from("10.0.0.0/8")])?;
        assert!(!only.contain(&unix) && only.contain(&v4));
        assert!(!Networks::default().contain(&v4));
        Ok(())
    }
}

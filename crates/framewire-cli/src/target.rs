use std::fmt;
use std::io::{self, ErrorKind};
use std::net::ToSocketAddrs;
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Whom to connect to: `host:port`, `[v6]:port` or `unix:/path`.
#[derive(Debug, Clone)]
pub(crate) struct Target(String);

/// For each address that a name stands for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Target {
    pub(crate) fn connect(&self) -> io::Result<Socket> {
        match self.0.strip_prefix("unix:") {
            Some(path) => connect_unix(path),
            None => connect_tcp(&self.0),
        }
    }
}

fn connect_unix(path: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn connect_tcp(addr: &str) -> io::Result<Socket> {
    let mut last = ErrorKind::AddrNotAvailable.into();
    for addr in addr.to_socket_addrs()? {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect_timeout(&addr.into(), CONNECT_TIMEOUT) {
            Ok(()) => return Ok(socket),
            Err(source) => last = source,
        }
    }
    Err(last)
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = match text.strip_prefix("unix:") {
            Some("") => Some("there is no path"),
            Some(_) => None,
            None => match text.rsplit_once(':') {
                None | Some((_, "")) => Some("there is no port"),
                Some(("", _)) => Some("there is no host"),
                Some((_, port)) if port.parse::<u16>().is_err() => Some("the port is no number up to 65535"),
                Some(_) => None,
            },
        };
        why.map_or_else(|| Ok(Self(text.to_owned())), |why| Err(format!("{why}; {}", Self::FORMS)))
    }
}

impl Target {
    const FORMS: &str = "it is host:port, [v6]:port or unix:/path";
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_one_of_its_parts_is_refused_for_it() {
        for (text, why) in [
            ("localhost", "no port"),
            ("localhost:", "no port"),
            (":7000", "no host"),
            ("localhost:http", "no number"),
            ("[::1]:70000", "no number"),
            ("unix:", "no path"),
            ("", "no port"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(why) && error.contains("host:port"), "{text}: {error}");
        }
        for text in ["localhost:7000", "[::1]:7000", "127.0.0.1:0", "unix:/tmp/x"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }
}

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    path::{Path, PathBuf},
};

use super::Addr;

/// What can be bound, or connected to: a text (`host:port`, `[v6]:port`, `unix:/path`), a pair of host and port (`("0.0.0.0", 7000)`, or
/// an `IpAddr`, `Ipv4Addr` or `Ipv6Addr` with a port), a `SocketAddr` of any kind, a path (of a Unix socket), or
/// several of the same type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no address",
    note = "give a text (\"0.0.0.0:7000\", \"[::]:7000\", \"unix:/run/chat.sock\"), a pair (\"0.0.0.0\", 7000), a `SocketAddr`, a path, or several of one of these"
)]
pub trait BindAddr: sealed::Sealed {
    /// Returns the addresses in the form in which they were given.
    #[doc(hidden)]
    fn targets(self) -> Vec<Target>;
}

#[doc(hidden)]
#[derive(Debug, Clone)]
pub enum Target {
    Text(String),
    Host(String, u16),
    Addr(SocketAddr),
    Path(PathBuf),
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! bind_addr {
    ($($ty:ty: |$value:pat_param| $targets:expr;)+) => {
        $(
            impl sealed::Sealed for $ty {}
            impl BindAddr for $ty {
                fn targets(self) -> Vec<Target> {
                    let $value = self;
                    $targets
                }
            }
        )+
    };
}

bind_addr! {
    &str: |text| vec![Target::Text(text.to_owned())];
    &String: |text| vec![Target::Text(text.clone())];
    String: |text| vec![Target::Text(text)];
    SocketAddr: |addr| vec![Target::Addr(addr)];
    SocketAddrV4: |addr| vec![Target::Addr(addr.into())];
    SocketAddrV6: |addr| vec![Target::Addr(addr.into())];
    (&str, u16): |(host, port)| vec![Target::Host(host.to_owned(), port)];
    (String, u16): |(host, port)| vec![Target::Host(host, port)];
    (IpAddr, u16): |pair| vec![Target::Addr(pair.into())];
    (Ipv4Addr, u16): |pair| vec![Target::Addr(pair.into())];
    (Ipv6Addr, u16): |pair| vec![Target::Addr(pair.into())];
    &Path: |path| vec![Target::Path(path.to_owned())];
    &PathBuf: |path| vec![Target::Path(path.clone())];
    PathBuf: |path| vec![Target::Path(path)];
}

impl<A: BindAddr, const N: usize> sealed::Sealed for [A; N] {}
impl<A: BindAddr, const N: usize> BindAddr for [A; N] {
    fn targets(self) -> Vec<Target> {
        self.into_iter().flat_map(BindAddr::targets).collect()
    }
}

impl<A: BindAddr> sealed::Sealed for Vec<A> {}
impl<A: BindAddr> BindAddr for Vec<A> {
    fn targets(self) -> Vec<Target> {
        self.into_iter().flat_map(BindAddr::targets).collect()
    }
}

impl<A: BindAddr + Clone> sealed::Sealed for &[A] {}
impl<A: BindAddr + Clone> BindAddr for &[A] {
    fn targets(self) -> Vec<Target> {
        self.iter().cloned().flat_map(BindAddr::targets).collect()
    }
}

/// What a target is without asking the resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    Addr(Addr),
    /// It has to be looked up.
    Name(Name),
}

/// A host by its name, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host.escape_debug(), self.port)
    }
}

impl Target {
    /// Returns `true` for a Unix socket.
    pub(crate) fn is_path(&self) -> bool {
        match self {
            Self::Path(_) => true,
            Self::Text(text) => text.starts_with("unix:"),
            Self::Host(..) | Self::Addr(_) => false,
        }
    }

    /// Returns the address to connect to, or the name that has to be looked up for it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn resolve(self) -> Result<Resolved, &'static str> {
        match self {
            Self::Addr(addr) => Ok(Resolved::Addr(Addr::Ip(addr))),
            Self::Path(path) => unix(path),
            Self::Host(host, port) => named(&host, port),
            Self::Text(text) => match text.strip_prefix("unix:") {
                Some(path) => unix(path.into()),
                None => {
                    if let Ok(addr) = text.parse() {
                        return Ok(Resolved::Addr(Addr::Ip(addr)));
                    }
                    let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
                    named(host, port.parse().map_err(|_| "its port is no number of 16 bits")?)
                }
            },
        }
    }
}

fn unix(path: PathBuf) -> Result<Resolved, &'static str> {
    if path.as_os_str().is_empty() {
        return Err("the path is empty");
    }
    Ok(Resolved::Addr(Addr::Unix(Some(path))))
}

fn named(host: &str, port: u16) -> Result<Resolved, &'static str> {
    if host.is_empty() {
        return Err("it has no host");
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => Ok(Resolved::Addr(Addr::Ip((ip, port).into()))),
        Err(_) => Ok(Resolved::Name(Name { host: host.to_owned(), port })),
    }
}

/// As it was given.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Addr(addr) => addr.fmt(f),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(addr: impl BindAddr) -> Result<Resolved, &'static str> {
        addr.targets().remove(0).resolve()
    }

    #[test]
    fn only_names_have_to_be_looked_up() {
        let v4 = SocketAddr::from(([127, 0, 0, 1], 7));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 7));
        let addr = |addr: SocketAddr| Ok(Resolved::Addr(Addr::Ip(addr)));
        assert_eq!(resolved("127.0.0.1:7"), addr(v4));
        assert_eq!(resolved("[::1]:7"), addr(v6));
        assert_eq!(resolved(("::1", 7)), addr(v6));
        assert_eq!(resolved(("127.0.0.1".to_owned(), 7)), addr(v4));
        assert_eq!(resolved(v6), addr(v6));
        let path = Addr::Unix(Some("/run/a.sock".into()));
        assert_eq!(resolved("unix:/run/a.sock"), Ok(Resolved::Addr(path.clone())));
        assert_eq!(resolved(Path::new("/run/a.sock")), Ok(Resolved::Addr(path)));
        let name = |host: &str| Ok(Resolved::Name(Name { host: host.to_owned(), port: 7 }));
        assert_eq!(resolved("localhost:7"), name("localhost"));
        assert_eq!(resolved(("example.com", 7)), name("example.com"));
    }

    #[test]
    fn what_is_no_address_is_refused_without_a_look_up() {
        let wrong = ["nonsense", "127.0.0.1", "127.0.0.1:99999", "host:", ":7", "unix:", ""];
        assert_eq!(wrong.map(|text| resolved(text).is_err()), [true; 7]);
        assert!(resolved(Path::new("")).is_err());
    }
}

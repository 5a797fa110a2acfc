use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

use crate::{error::ServeError, reactor::BoundSocket};

/// What can be bound: a text (`host:port`, `[v6]:port`, `unix:/path`), a `SocketAddr`, or several of them.
pub trait BindAddr: sealed::Sealed {
    /// Each address as a text or a number.
    #[doc(hidden)]
    fn targets(self) -> Vec<Target>;
}

#[doc(hidden)]
#[derive(Debug, Clone)]
pub enum Target {
    Text(String),
    Addr(SocketAddr),
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! bind_addr {
    ($($ty:ty: |$value:ident| $targets:expr;)+) => {
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

/// Binds every target.
pub(super) fn bind(addrs: impl BindAddr, reuse_port: bool) -> Result<Vec<BoundSocket>, ServeError> {
    let targets = addrs.targets();
    if targets.is_empty() {
        return Err(ServeError::Address { text: String::new(), why: "no address was given".into() });
    }
    targets.into_iter().map(|target| bind_one(target, reuse_port)).collect()
}

fn bind_one(target: Target, reuse_port: bool) -> Result<BoundSocket, ServeError> {
    let text = match target {
        Target::Addr(addr) => return bind_tcp(addr, reuse_port),
        Target::Text(text) => text,
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return bind_unix(path, &text);
    }
    let resolved = text.to_socket_addrs();
    let addrs =
        resolved.map_err(|error| ServeError::Address { text: text.clone(), why: error.to_string() })?;
    let mut failure = ServeError::Address { text, why: "it resolves to no address".into() };
    for addr in addrs {
        match bind_tcp(addr, reuse_port) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn bind_tcp(addr: SocketAddr, reuse_port: bool) -> Result<BoundSocket, ServeError> {
    BoundSocket::tcp(addr, reuse_port).map_err(|source| ServeError::Bind { addr: addr.to_string(), source })
}

#[cfg(unix)]
fn bind_unix(path: &str, text: &str) -> Result<BoundSocket, ServeError> {
    if path.is_empty() {
        return Err(ServeError::Address { text: text.to_owned(), why: "the path is empty".into() });
    }
    let bound = BoundSocket::unix(path.into());
    bound.map_err(|source: io::Error| ServeError::Bind { addr: text.to_owned(), source })
}

#[cfg(not(unix))]
fn bind_unix(_path: &str, text: &str) -> Result<BoundSocket, ServeError> {
    let source = io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets");
    Err(ServeError::Bind { addr: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_names_no_address_is_shown() {
        for text in ["nonsense", "127.0.0.1", "127.0.0.1:99999", "unix:", ""] {
            let error = bind(text, false).map(|_| ()).map_err(|error| error.to_string());
            assert!(
                error.as_ref().is_err_and(|error| error.contains(&format!("{text:?}"))),
                "{text:?}: {error:?}"
            );
        }
    }

    #[test]
    fn a_taken_address_is_named() {
        let first = bind("127.0.0.1:0", false).map_err(|error| error.to_string());
        let addr = first.as_ref().map(|sockets| sockets[0].addr().to_string()).unwrap_or_default();
        let listening = first.map(|mut sockets| sockets.remove(0).listen(&Default::default()));
        let error = bind(addr.as_str(), false).map(|_| ()).map_err(|error| error.to_string());
        assert!(
            error.as_ref().is_err_and(|error| error.starts_with(&format!("can not bind {addr}: "))),
            "{error:?}"
        );
        drop(listening);
    }

    #[test]
    fn several_addresses_of_several_kinds_are_bound() -> Result<(), ServeError> {
        let sockets = bind(vec!["127.0.0.1:0".to_owned(), "[::1]:0".to_owned()], false)?;
        let ports = sockets.iter().filter_map(|socket| socket.addr().socket_addr()).map(|addr| addr.port());
        assert_eq!(ports.filter(|port| *port != 0).count(), 2);
        Ok(())
    }
}

use std::{io, net::SocketAddr, net::ToSocketAddrs, sync::Arc, time::Duration};

use super::ClientError;
use crate::{
    addr::{Addr, BindAddr, Target},
    reactor::BlockingSocket,
};

/// Connects to the first of the addresses that can be reached. The error is that of the last one.
pub(super) fn connect(addrs: impl BindAddr, each: Duration) -> Result<BlockingSocket, ClientError> {
    let mut failure = no_address(String::new(), "no address was given");
    for target in addrs.targets() {
        match resolve(target) {
            Ok(addrs) => {
                for addr in addrs {
                    match BlockingSocket::connect(&addr, each) {
                        Ok(socket) => return Ok(socket),
                        Err(source) => failure = cannot_connect(&addr, source),
                    }
                }
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn resolve(target: Target) -> Result<Vec<Addr>, ClientError> {
    match target {
        Target::Addr(addr) => Ok(vec![addr.into()]),
        Target::Path(path) if path.as_os_str().is_empty() => {
            Err(no_address("unix:".into(), "the path is empty"))
        }
        Target::Path(path) => Ok(vec![Addr::Unix(Some(path))]),
        Target::Host(host, port) => {
            look_up((host.as_str(), port).to_socket_addrs(), || format!("{host}:{port}"))
        }
        Target::Text(text) => match text.strip_prefix("unix:") {
            Some(path) => resolve(Target::Path(path.into())),
            None => look_up(text.to_socket_addrs(), || text.clone()),
        },
    }
}

fn look_up(
    found: io::Result<impl Iterator<Item = SocketAddr>>,
    name: impl Fn() -> String,
) -> Result<Vec<Addr>, ClientError> {
    let addrs: Vec<Addr> = found.map_err(|why| no_address(name(), &why.to_string()))?.map(Addr::Ip).collect();
    if addrs.is_empty() { Err(no_address(name(), "it resolves to no address")) } else { Ok(addrs) }
}

fn no_address(text: String, why: &str) -> ClientError {
    ClientError::Address { text: text.into(), why: why.into() }
}

fn cannot_connect(addr: &Addr, source: io::Error) -> ClientError {
    ClientError::Connect { addr: addr.to_string().into(), source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_names_no_address_is_shown() {
        for text in ["nonsense", "127.0.0.1", "127.0.0.1:99999", "unix:", ""] {
            let error = connect(text, Duration::from_secs(1)).map(|_| ()).map_err(|error| error.to_string());
            let named = format!("{text:?} is no address to connect to: ");
            assert!(error.as_ref().is_err_and(|error| error.starts_with(&named)), "{text:?}: {error:?}");
        }
        let none: [&str; 0] = [];
        assert!(matches!(connect(none, Duration::from_secs(1)), Err(ClientError::Address { .. })));
    }
}

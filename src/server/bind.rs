use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use crate::{
    addr::{BindAddr, Target},
    error::ServeError,
    reactor::{BoundDatagrams, BoundSocket},
};

/// Binds every target, for streams.
pub(crate) fn bind(addrs: impl BindAddr, reuse_port: bool) -> Result<Vec<BoundSocket>, ServeError> {
    bind_each(addrs, |addr| BoundSocket::tcp(addr, reuse_port), bind_unix)
}

/// Binds every target, for datagrams.
pub(super) fn bind_udp(addrs: impl BindAddr) -> Result<Vec<BoundDatagrams>, ServeError> {
    let no_path = |_, text| Err(ServeError::Address { text, why: "UDP has no paths".into() });
    bind_each(addrs, |addr| BoundDatagrams::udp(addr, false), no_path)
}

fn bind_each<B>(
    addrs: impl BindAddr,
    bind_ip: impl Fn(SocketAddr) -> io::Result<B>,
    bind_path: impl Fn(PathBuf, String) -> Result<B, ServeError>,
) -> Result<Vec<B>, ServeError> {
    let bind_ip =
        &|addr: SocketAddr| bind_ip(addr).map_err(|source| ServeError::bind(addr.to_string(), source));
    let bind_one = |target| match target {
        Target::Addr(addr) => bind_ip(addr),
        Target::Path(path) => {
            let text = format!("unix:{}", path.display());
            bind_path(path, text)
        }
        Target::Host(host, port) => {
            let resolved = (host.as_str(), port).to_socket_addrs();
            bind_first(resolved, || format!("{host}:{port}"), bind_ip)
        }
        Target::Text(text) => match text.strip_prefix("unix:") {
            Some(path) => bind_path(path.into(), text.clone()),
            None => bind_first(text.to_socket_addrs(), || text.clone(), bind_ip),
        },
    };
    let targets = addrs.targets();
    if targets.is_empty() {
        return Err(ServeError::Address { text: String::new(), why: "no address was given".into() });
    }
    targets.into_iter().map(bind_one).collect()
}

/// Binds to the first of the addresses that works.
fn bind_first<B>(
    resolved: io::Result<impl Iterator<Item = SocketAddr>>,
    name: impl Fn() -> String,
    bind_ip: impl Fn(SocketAddr) -> Result<B, ServeError>,
) -> Result<B, ServeError> {
    let addrs = resolved.map_err(|error| ServeError::Address { text: name(), why: error.to_string() })?;
    let mut failure = ServeError::Address { text: name(), why: "it resolves to no address".into() };
    for addr in addrs {
        match bind_ip(addr) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(unix)]
fn bind_unix(path: PathBuf, text: String) -> Result<BoundSocket, ServeError> {
    if path.as_os_str().is_empty() {
        return Err(ServeError::Address { text, why: "the path is empty".into() });
    }
    BoundSocket::unix(path).map_err(|source: io::Error| ServeError::bind(text, source))
}

#[cfg(not(unix))]
fn bind_unix(_path: PathBuf, text: String) -> Result<BoundSocket, ServeError> {
    let source = io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets");
    Err(ServeError::bind(text, source))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
        path::Path,
    };

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
    fn a_host_beside_a_port_is_bound_in_every_form_that_the_standard_library_has() -> Result<(), ServeError> {
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let bound = [
            bind(("127.0.0.1", 0), false)?,
            bind(("127.0.0.1".to_owned(), 0), false)?,
            bind((v4, 0), false)?,
            bind((IpAddr::from(v4), 0), false)?,
            bind(SocketAddrV4::new(v4, 0), false)?,
            bind(("::1", 0), false)?,
            bind((v6, 0), false)?,
            bind(SocketAddrV6::new(v6, 0, 0, 0), false)?,
            bind([("127.0.0.1", 0), ("::1", 0)], false)?,
        ];
        let ips: Vec<_> = bound.iter().flatten().filter_map(|socket| socket.addr().ip()).collect();
        let (v4, v6) = (IpAddr::from(v4), IpAddr::from(v6));
        assert_eq!(ips, [v4, v4, v4, v4, v4, v6, v6, v6, v4, v6]);
        let error = bind(("no host", 7), false).map(|_| ()).map_err(|error| error.to_string());
        assert!(
            error.as_ref().is_err_and(|error| error.starts_with("\"no host:7\" is no address")),
            "{error:?}"
        );
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_path_is_bound_as_a_unix_socket() -> Result<(), ServeError> {
        let path = std::env::temp_dir().join(format!("framewire-path-{}.sock", std::process::id()));
        fn bound(addr: impl BindAddr) -> Result<String, ServeError> {
            Ok(bind(addr, false)?[0].addr().to_string())
        }
        let text = format!("unix:{}", path.display());
        assert_eq!(bound(path.as_path())?, text);
        assert_eq!(bound(&path)?, text);
        assert_eq!(bound(path)?, text);
        let error = bind(Path::new(""), false).map(|_| ()).map_err(|error| error.to_string());
        assert!(error.as_ref().is_err_and(|error| error.contains("the path is empty")), "{error:?}");
        Ok(())
    }

    #[test]
    fn a_taken_address_is_named() {
        let first = bind("127.0.0.1:0", false).map_err(|error| error.to_string());
        let addr = first.as_ref().map(|sockets| sockets[0].addr().to_string()).unwrap_or_default();
        let listening = first.map(|mut sockets| sockets.remove(0).listen(&Default::default()));
        let error = bind(addr.as_str(), false).map(|_| ()).map_err(|error| error.to_string());
        assert!(
            error.as_ref().is_err_and(|error| error.starts_with(&format!("cannot bind {addr}: "))),
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

//! Serves only clients with a certificate of ours, and greets each by it. `cargo run --release --example mutual_tls
//! --features tls -- server.pem server-key.pem ca.pem`, then `openssl s_client -connect 127.0.0.1:7000 -cert client.pem -key
//! client-key.pem`.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{env, error::Error};

use framewire::{Handled, Separator, Server, Session, TlsAcceptor, TlsIdentity, TlsRoots, session_fn};

const MAX_LINE: usize = 8 * 1024;

/// What is known of a client: how long its certificate is, and how many are behind it. A real server would look its name up.
fn greet(session: &mut Session<'_>) -> Handled {
    let shown: Vec<usize> =
        session.tls().into_iter().flat_map(|tls| tls.peer_certificates()).map(<[u8]>::len).collect();
    Ok(session.send(format!("welcome, with {} certificate(s) of {shown:?} bytes", shown.len()))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [certificates, key, clients, rest @ ..] = &args[..] else {
        return Err("usage: mutual_tls CERTIFICATES.pem KEY.pem CLIENT_ROOTS.pem [ADDRESS]".into());
    };
    let addr = rest.first().map_or("127.0.0.1:7000", String::as_str);

    let acceptor = TlsAcceptor::builder(TlsIdentity::from_pem_files(certificates, key)?)
        .require_client_certificates(TlsRoots::from_pem_file(clients)?)
        .build()?;
    let server = Server::bind(addr)?.framing(Separator::lines().max(MAX_LINE)).tls(&acceptor);
    let running = server.spawn(session_fn(greet, |session, (), packet| Ok(session.send(packet)?)))?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    Ok(running.wait()?)
}

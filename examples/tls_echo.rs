//! An echo over TLS whose certificate is reloaded on SIGHUP. `cargo run --release --example tls_echo --features tls --
//! fullchain.pem key.pem`, then `openssl s_client -connect 127.0.0.1:7000`, type lines, and `kill -HUP` it when the files
//! have changed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{env, error::Error, thread};

use framewire::{Failure, Separator, Server, Session, TlsAcceptor, TlsIdentity, TlsReloader, session_fn};

const MAX_LINE: usize = 8 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(certificates), Some(key)) = (args.next(), args.next()) else {
        return Err("usage: tls_echo CERTIFICATES.pem KEY.pem [ADDRESS]".into());
    };
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());

    let acceptor = TlsAcceptor::new(TlsIdentity::from_pem_files(certificates, key)?)?;
    reload_on_hangup(acceptor.reloader())?;
    let handler = session_fn(
        |session: &mut Session<'_>| {
            let tls = session.tls().ok_or_else(|| Failure::because("no TLS"))?;
            println!("{} speaks {:?} with {}", session.peer_addr(), tls.version(), tls.cipher_suite());
            Ok(())
        },
        |session, (), packet| Ok(session.send(packet)?),
    );
    let server = Server::bind(addr)?.framing(Separator::lines().max(MAX_LINE)).tls(&acceptor);
    let running = server.spawn(handler)?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    Ok(running.wait()?)
}

/// Reads the files again at each SIGHUP. If they cannot be used, the old certificate stays.
#[cfg(unix)]
fn reload_on_hangup(reloader: TlsReloader) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            match reloader.reload() {
                Ok(()) => println!("reloaded"),
                Err(error) => println!("not reloaded: {error}"),
            }
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn reload_on_hangup(_: TlsReloader) -> std::io::Result<()> {
    Ok(())
}

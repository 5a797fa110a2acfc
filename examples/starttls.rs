//! A mail-like log-in that wants TLS first. `cargo run --release --example starttls --features tls -- fullchain.pem key.pem`,
//! then `openssl s_client -starttls smtp -quiet -connect 127.0.0.1:7000` and `LOGIN ann`.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{env, error::Error};

use framewire::{Handled, Separator, Server, Session, TlsAcceptor, TlsIdentity, session_fn};

const MAX_LINE: usize = 512;

fn command(acceptor: &TlsAcceptor, session: &mut Session<'_>, line: &[u8]) -> Handled {
    let is_private = session.tls().is_some();
    match line.split(|byte| *byte == b' ').next().unwrap_or_default() {
        b"EHLO" if is_private => session.send("250 hello in private")?,
        b"EHLO" => {
            session.send("250-hello")?;
            session.send("250 STARTTLS")?;
        }
        b"STARTTLS" if is_private => session.send("503 there is TLS already")?,
        b"STARTTLS" => {
            // The reply is in clear text; all that follows is TLS, and whatever clear text came behind the command ends
            // the session.
            session.send("220 go ahead")?;
            session.push_layer(acceptor.layer());
        }
        b"LOGIN" if is_private => session.send("235 welcome")?,
        b"LOGIN" => session.send("530 STARTTLS first")?,
        b"QUIT" => {
            session.send("221 bye")?;
            session.close();
        }
        _ => session.send("502 EHLO, STARTTLS, LOGIN or QUIT")?,
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(certificates), Some(key)) = (args.next(), args.next()) else {
        return Err("usage: starttls CERTIFICATES.pem KEY.pem [ADDRESS]".into());
    };
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());

    let acceptor = TlsAcceptor::new(TlsIdentity::from_pem_files(certificates, key)?)?;
    let handler = session_fn(
        |session: &mut Session<'_>| Ok(session.send("220 ready")?),
        move |session, (), line: &[u8]| command(&acceptor, session, line),
    );
    let running = Server::bind(addr)?.framing(Separator::lines().max(MAX_LINE)).spawn(handler)?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    Ok(running.wait()?)
}

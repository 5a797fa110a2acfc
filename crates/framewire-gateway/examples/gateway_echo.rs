//! An echo behind a gateway, by threads that block. `cargo run --release -p framewire-gateway -- --open-to-all`, in another terminal
//! `cargo run --release -p framewire-gateway --example gateway_echo -- server 1`, in a third one
//! `.. --example gateway_echo -- client 1`: type lines.
//!
//! Behind the server's ID there may be the address of the gateway, and for a server its key.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
    io::{BufRead, stdin},
    process::ExitCode,
    thread,
    time::Duration,
};

use framewire_gateway::{
    Dialect,
    blocking::{Connection, Endpoint, EndpointError},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Who waits for longer than this is asked again.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Sends back what comes on one connection, until it is closed.
fn echo(connection: &Connection) -> Result<(), EndpointError> {
    loop {
        match connection.recv(FOR_EVER) {
            Ok(Some(message)) => connection.send(&message)?,
            Ok(None) => return Ok(()),
            Err(EndpointError::TimedOut(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Serves with a thread for each connection.
fn serve(link: &Endpoint) -> Result<(), EndpointError> {
    println!("connected");
    loop {
        match link.accept(FOR_EVER) {
            Ok(connection) => {
                thread::spawn(move || {
                    if let Err(error) = echo(&connection) {
                        eprintln!("client {}: {error}", connection.remote());
                    }
                });
            }
            Err(EndpointError::TimedOut(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends the lines that are typed, one at a time, and shows what comes back.
fn ask(link: &Endpoint, server: u32) -> Result<(), EndpointError> {
    let connection = link.dial(server, PATIENCE)?;
    println!("connected");
    for line in stdin().lock().lines().map_while(Result::ok) {
        connection.send(line.as_bytes())?;
        match connection.recv(PATIENCE)? {
            Some(reply) => println!("{}", String::from_utf8_lossy(&reply)),
            None => break,
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let role = args.next().unwrap_or_default();
    let Some(server) = args.next().and_then(|id| id.parse().ok()) else {
        eprintln!("gateway_echo server | client ID [ADDR [KEY]]");
        return 2.into();
    };
    let default = if role == "server" { "127.0.0.1:7001" } else { "127.0.0.1:7000" };
    let addr = args.next().unwrap_or_else(|| default.to_owned());
    let key = args.next().unwrap_or_default();
    let done = if role == "server" {
        Endpoint::server(addr.as_str(), server, key.as_bytes(), Dialect::Md5).and_then(|link| serve(&link))
    } else {
        Endpoint::client(addr.as_str()).and_then(|link| ask(&link, server))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

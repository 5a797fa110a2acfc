//! A client that asks and waits. `cargo run --example blocking_client -- 127.0.0.1:7000 hello "good day"` sends each of the
//! words as a line, to the example `echo` for instance, and prints what comes back.
//!
//! `cargo run --example blocking_client -- serve 127.0.0.1:7000` is such a server, on blocking sockets as well: it sends each
//! line back in capitals, with a thread for each client.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{error::Error, thread, time::Duration};

use framewire::{
    Heartbeat, Separator,
    blocking::{Client, ClientError, Listener},
};

/// The longest line.
const MAX_LINE: usize = 64 * 1024;
/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients that are served at once. More wait in the queue of the listener.
const CLIENTS: usize = 64;

fn framing() -> Separator {
    Separator::lines().max(MAX_LINE)
}

/// Sends all lines at once, then prints the reply to each.
fn ask(addr: &str, lines: impl Iterator<Item = String>) -> Result<(), ClientError> {
    let mut client = Client::connect(addr, framing())?.timeout(PATIENCE);
    let mut asked = 0;
    for line in lines {
        client.send(line)?;
        asked += 1;
    }
    for _ in 0..asked {
        let Some(reply) = client.recv()? else { break };
        println!("{}", String::from_utf8_lossy(reply));
    }
    client.close()
}

/// Sends each line back in capitals until the client ends, and an empty line every 30 s meanwhile.
fn answer(client: Client<Separator>) -> Result<(), Box<dyn Error>> {
    let mut client = client.timeout(None);
    client.set_heartbeat(Heartbeat::every(Duration::from_secs(30), "")?);
    client.process(|replies, line| Ok(replies.send(line.to_ascii_uppercase())?))?;
    Ok(client.close()?)
}

fn serve(addr: &str) -> Result<(), Box<dyn Error>> {
    let mut listener = Listener::bind(addr, framing())?;
    println!("listening on {}", listener.local_addr());
    let mut threads = Vec::new();
    loop {
        threads.retain(|thread: &thread::JoinHandle<()>| !thread.is_finished());
        if threads.len() >= CLIENTS {
            thread::sleep(Duration::from_millis(50));
            continue;
        }
        let client = listener.accept()?;
        threads.push(thread::spawn(move || {
            if let Err(error) = answer(client) {
                eprintln!("{error}");
            }
        }));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    match args.next() {
        Some(word) if word == "serve" => serve(&args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned())),
        Some(addr) => Ok(ask(&addr, args)?),
        None => Ok(ask("127.0.0.1:7000", ["hello".to_owned()].into_iter())?),
    }
}

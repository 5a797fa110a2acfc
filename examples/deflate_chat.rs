//! A chat whose lines are compressed. `cargo run --release --features deflate --example deflate_chat`, then, in as many
//! terminals as there are to be people, `cargo run --release --features deflate --example deflate_chat -- join` and type.
//!
//! The first argument chooses another address: `deflate_chat 127.0.0.1:0`, and `deflate_chat join 127.0.0.1:7000`; further ones
//! are lines to say.
//!
//! Each line is for all others. What a session keeps between two lines is nothing: the window is of one batch, so that
//! 100,000 people who mostly read cost no memory for it.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{io::BufRead, sync::mpsc::channel, time::Duration};

use framewire::{
    Channel, Deflate, DeflateWindow, Dial, Handled, Limits, Overflow, PacketHandler, Separator, Server,
    Session, SingleReactor, WorkerPool, packet_fn,
};

/// The longest line, in bytes.
const LONGEST: usize = 16 * 1024;
/// How long it may take to join, and to send what was typed last.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both sides must have the same.
fn deflate() -> Deflate {
    Deflate::new().window(DeflateWindow::PerBatch)
}

#[derive(Clone)]
struct Chat {
    room: Channel,
}

impl PacketHandler for Chat {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.room.join(&session.handle())?;
        Ok(session.send(format_args!("{} people are here", self.room.len()))?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), line: &[u8]) -> Handled {
        let who = session.peer_addr();
        let text = format!("{who}: {}", String::from_utf8_lossy(line));
        self.room.publish_except(session.id(), text)?;
        Ok(())
    }
}

fn serve(addr: String) -> Result<(), framewire::ServeError> {
    let running = Server::bind(addr)?
        .framing(Separator::lines())
        .limits(Limits::default().frame(LONGEST))
        .deflate(deflate())
        .strategy(WorkerPool::per_core())
        .spawn(Chat { room: Channel::new().overflow(Overflow::DropOldest) })?;
    for addr in running.local_addrs() {
        println!("listening on {addr}");
    }
    running.wait()
}

/// Says these lines and those that are typed, and prints those that come.
fn join(addr: String, lines: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let (told, is_here) = channel();
    let print = packet_fn(move |_, line| {
        println!("{}", String::from_utf8_lossy(line));
        // Nobody waits for the second one.
        let _ = told.send(());
        Ok(())
    });
    let running =
        Server::unbound().framing(Separator::lines()).strategy(SingleReactor::new()).spawn(print)?;
    let upstream = running.connect(Dial::to(addr).deflate(deflate()))?;
    is_here.recv_timeout(PATIENCE)?;
    for line in lines.map(Ok).chain(std::io::stdin().lock().lines()) {
        upstream.send(line?)?;
    }
    running.stop(PATIENCE)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let default = || "127.0.0.1:7000".to_owned();
    match args.next() {
        Some(word) if word == "join" => join(args.next().unwrap_or_else(default), args),
        addr => Ok(serve(addr.unwrap_or_else(default))?),
    }
}

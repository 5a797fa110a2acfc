//! A small Redis-compatible store. `cargo run --release --example resp_server`, then `redis-cli -p 6380` and type
//! `set greeting hello`, `get greeting`; or `redis-benchmark -p 6380 -t ping,set,get -P 16`.
//!
//! | option | default | |
//! |---|---|---|
//! | `--port` | 6380 | of 127.0.0.1; 0 takes a free one, which is printed |
//! | `--threads` | 1 | one is a single reactor, more are a pool of that many workers |
//! | `--max-memory` | 268435456 | bytes of keys and values; what does not fit is refused |
//!
//! The framing of Redis is `framing.rs`, written with the public trait alone; `store.rs` keeps the keys, `commands.rs`
//! has the commands. A request is at most 1 MiB, the replies that wait for a client at most 4 MiB; nothing is kept on
//! disk. SIGTERM or ctrl-c ends it gracefully.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

mod commands;
mod framing;
mod store;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use commands::Commands;
use framewire::{Server, SingleReactor, WorkerPool};
use framing::Resp;
use store::Store;

const GRACE: Duration = Duration::from_secs(5);
/// Parts of the store per thread: few enough to lock them all, and enough that threads seldom need the same one.
const PARTS: usize = 8;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("resp_server: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    port: u16,
    threads: usize,
    max_memory: usize,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self { port: 6380, threads: 1, max_memory: 256 << 20 };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            let wrong = |error| format!("{name} {value:?}: {error}");
            match name.as_str() {
                "--port" => options.port = value.parse().map_err(wrong)?,
                "--threads" => options.threads = value.parse().map_err(wrong)?,
                "--max-memory" => options.max_memory = value.parse().map_err(wrong)?,
                _ => return Err(format!("no option {name}").into()),
            }
        }
        Ok(options)
    }
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let server = Server::bind(format!("127.0.0.1:{}", options.port))?.framing(Resp::new());
    let (server, parts) = match options.threads {
        0 | 1 => (server.strategy(SingleReactor::new()), 1),
        threads => (server.strategy(WorkerPool::new(threads)), PARTS * threads.min(32)),
    };
    let store = Arc::new(Store::new(parts, options.max_memory));
    let running = server.stop_on_signal(GRACE).spawn(Commands::new(store))?;
    for addr in running.local_addrs() {
        println!("listening on {addr}");
    }
    Ok(running.wait()?)
}

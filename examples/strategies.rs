//! One server, five ways to place its connections. `cargo run --release --example strategies -- by-peer`, then
//! `nc 127.0.0.1 7000` and type: the reply names the shard. Others: single, pool, reuse-port, threads; ctrl-c ends it.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use framewire::{
    Addr, ForkingStrategy, NewConnection, Placement, Separator, Server, ShardId, ShardLoads, SingleReactor,
    ThreadPerConnection, WorkerPool, packet_fn,
};

const WORKERS: usize = 2;

/// A strategy of your own: all connections of one IP address share one worker, and none has more than its quota.
struct ByPeer {
    hasher: RandomState,
    quota: usize,
}

impl ForkingStrategy for ByPeer {
    fn workers(&self) -> usize {
        WORKERS
    }

    fn place(&mut self, connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        let hash = self.hasher.hash_one(connection.peer().ip());
        let worker = ShardId::new(1 + (hash % WORKERS as u64) as u32);
        if loads.sessions(worker) < self.quota { Placement::On(worker) } else { Placement::Refuse }
    }

    fn on_start(&mut self, addrs: &[Addr]) {
        println!("by-peer starts: {} address, {WORKERS} workers", addrs.len());
    }

    fn on_stop(&mut self) {
        println!("by-peer stops");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let strategy = args.next().unwrap_or_else(|| "by-peer".to_owned());
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let server = Server::bind(addr)?.framing(Separator::lines().max(1000));
    let server = match strategy.as_str() {
        "single" => server.strategy(SingleReactor::new()),
        "pool" => server.strategy(WorkerPool::new(WORKERS)),
        "reuse-port" => server.strategy(WorkerPool::new(WORKERS).reuse_port()),
        "threads" => server.strategy(ThreadPerConnection::max(100)),
        "by-peer" => server.strategy(ByPeer { hasher: RandomState::new(), quota: 4 }),
        other => return Err(format!("no strategy {other:?}").into()),
    };
    let answer = packet_fn(|session, _line| Ok(session.send(format!("shard {}", session.id().shard()))?));
    let running = server.stop_on_signal(Duration::from_secs(5)).spawn(answer)?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    Ok(running.wait()?)
}

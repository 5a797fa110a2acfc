//! Pushes lines to 10,000 idle subscribers. `cargo run --release --example push` in one terminal and, in another,
//! `cargo run --release --example push -- subscribe 10000`, in both after `ulimit -n 20000`; in a third
//! `nc 127.0.0.1 7001` and type what they are to be told, or `stats`.
//!
//! A line is encoded once, and each worker gets one command for all of its subscribers. One that does not read is closed
//! when `MAX_QUEUED` bytes wait for it, and delays no other. Two arguments choose other addresses: first that of the
//! subscribers, then that of the publishers; `subscribe` takes the address behind the number.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{error::Error, io, io::Read, net::TcpStream, time::Duration};

use framewire::{
    Handled, LengthPrefix, Limits, Reactor, Separator, Server, ServerHandle, Session, WorkerPool,
};
use framewire::{bytes::Bytes, packet_fn};

const MAX_LINE: usize = 1024;
/// Bytes that may wait for one subscriber.
const MAX_QUEUED: usize = 64 * 1024;
/// Otherwise both services would have half of the descriptors each.
const MAX_SUBSCRIBERS: usize = 100_000;
const GRACE: Duration = Duration::from_secs(5);

fn publish(subscribers: &ServerHandle, session: &mut Session<'_>, line: &[u8]) -> Handled {
    if line == b"stats" {
        let metrics = subscribers.metrics();
        let (sessions, packets) = (metrics.sessions, metrics.packets_out);
        let queued = metrics.buffered;
        return Ok(session.send(format!("{sessions} subscribers, {packets} packets, {queued} bytes wait"))?);
    }
    subscribers.broadcast(Bytes::copy_from_slice(line))?;
    Ok(session.send(format!("on its way to {} subscribers", subscribers.session_count()))?)
}

fn serve(mut args: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut addr = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let limits = Limits::default()
        .connections(MAX_SUBSCRIBERS)
        .outbox_low(0)
        .outbox_high(MAX_QUEUED / 2)
        .outbox_hard(MAX_QUEUED);
    let subscribers = Server::bind(addr("127.0.0.1:7000"))?.framing(LengthPrefix::u16_be()).limits(limits);
    let publishers = Server::bind(addr("127.0.0.1:7001"))?.framing(Separator::lines().max(MAX_LINE));
    let (idle, told) = (subscribers.local_addrs(), subscribers.handle());
    publishers.local_addrs().iter().for_each(|addr| println!("publishers at {addr}"));
    let running = Reactor::new(WorkerPool::per_core())
        // What a subscriber sends is read and dropped.
        .service(subscribers, packet_fn(|_, _| Ok(())))
        .service(publishers, packet_fn(move |session, line| publish(&told, session, line)))
        .stop_on_signal(GRACE)
        .spawn()?;
    idle.iter().for_each(|addr| println!("listening on {addr}"));
    Ok(running.wait()?)
}

/// One packet of a length of two bytes and so many more.
fn receive(subscriber: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 2];
    subscriber.read_exact(&mut header)?;
    let mut packet = vec![0; u16::from_be_bytes(header).into()];
    subscriber.read_exact(&mut packet)?;
    Ok(packet)
}

/// Subscribes so many times, and tells of each packet how many subscribers have got it.
fn subscribe(mut args: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let count: usize = args.next().ok_or("subscribe needs a number")?.parse()?;
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let connect = |_| TcpStream::connect(&addr);
    let mut subscribers: Vec<_> = (0..count.min(MAX_SUBSCRIBERS)).map(connect).collect::<Result<_, _>>()?;
    println!("{} subscribers of {addr}", subscribers.len());
    while let Some((first, others)) = subscribers.split_first_mut() {
        let Ok(packet) = receive(first) else { break };
        let mut have_it = 1;
        for other in others {
            other.set_read_timeout(Some(GRACE))?;
            have_it += usize::from(receive(other).is_ok_and(|other| other == packet));
        }
        println!("{:?}: {have_it} of {count} have it", String::from_utf8_lossy(&packet));
    }
    println!("the server has ended");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "subscribe").is_some() { subscribe(args) } else { serve(args) }
}

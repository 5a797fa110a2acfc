//! An echo server for measurements, or one that sends each packet to all, or to one other. `cargo run --release --example lab_echo -- --port 7000 --framing line`, then
//! `nc 127.0.0.1 7000` and type.
//!
//! | option | default | |
//! |---|---|---|
//! | `--port` | 0 | of 127.0.0.1; 0 takes a free one, which is printed |
//! | `--strategy` | `single` | or `pool` (of N workers), `threads` (one for each connection, 4096 at most) |
//! | `--threads` | 1 | N, for the pool |
//! | `--framing` | `u32be` | or `u8`, `u16be`, `u16le`, `u24be`, `u24le`, `u32le`, `u64be`, `u64le`, `varint`, `line`, `crlf`, `nul`, `sep:HEX`, `netstring`, `eof`, `raw` |
//! | `--max` | 1048576 | bytes of a payload |
//! | `--mode` | `echo` | or `broadcast`: each packet goes to every connection; or `link`: each two connections that come one after the other are linked (`single` only) |
//! | `--layers` | 0 | layers that pass bytes through, for each connection; 8 at most |
//! | `--services` | 0 | further services on the same threads, each with a port of its own, to measure idle services; 253 at most |
//!
//! All limits are on, and an idle timeout of 300 s. SIGTERM or ctrl-c ends it gracefully.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{error::Error, num::IntErrorKind, process::ExitCode, time::Duration};

use framewire::{
    Framing, Layer, LayerError, LayerIo, LengthPrefix, Limits, Netstring, Raw, Reactor, Separator, Server,
    SingleReactor, ThreadPerConnection, UntilEof, VarintPrefix, WorkerPool, bytes::BytesMut, packet_fn,
    session_fn,
};

const MAX_THREADS: usize = 4096;
const IDLE: Duration = Duration::from_secs(300);
const GRACE: Duration = Duration::from_secs(5);

type Outcome = Result<(), Box<dyn Error>>;

struct Options {
    port: u16,
    threads: usize,
    strategy: String,
    framing: String,
    mode: String,
    max: usize,
    layers: usize,
    services: usize,
}

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(Options::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            port: 0,
            threads: 1,
            strategy: "single".into(),
            framing: "u32be".into(),
            mode: "echo".into(),
            max: 1 << 20,
            layers: 0,
            services: 0,
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--port" => options.port = number(&name, &value)?,
                "--threads" => options.threads = number(&name, &value)?,
                "--strategy" => options.strategy = value,
                "--framing" => options.framing = value,
                "--mode" => options.mode = value,
                "--max" => options.max = number(&name, &value)?,
                "--layers" => options.layers = number(&name, &value)?,
                "--services" => options.services = number(&name, &value)?,
                _ => return Err(format!("no option {name}; see the head of examples/lab_echo.rs").into()),
            }
        }
        Ok(options)
    }

    /// Each framing is a type of its own, so that the compiler can inline its decode.
    fn run(self) -> Outcome {
        match self.framing.as_str() {
            "u8" => self.serve(LengthPrefix::u8()),
            "u16be" => self.serve(LengthPrefix::u16_be()),
            "u16le" => self.serve(LengthPrefix::u16_le()),
            "u24be" => self.serve(LengthPrefix::u24_be()),
            "u24le" => self.serve(LengthPrefix::u24_le()),
            "u32be" => self.serve(LengthPrefix::u32_be()),
            "u32le" => self.serve(LengthPrefix::u32_le()),
            "u64be" => self.serve(LengthPrefix::u64_be()),
            "u64le" => self.serve(LengthPrefix::u64_le()),
            "varint" => self.serve(VarintPrefix::u32()),
            "line" => self.serve(Separator::lines()),
            "crlf" => self.serve(Separator::crlf()),
            "nul" => self.serve(Separator::nul()),
            "netstring" => self.serve(Netstring::new()),
            "eof" => self.serve(UntilEof::new()),
            "raw" => self.serve(Raw::new()),
            other => match other.strip_prefix("sep:") {
                Some(digits) => self.serve(Separator::bytes(hex(digits)?)?),
                None => Err(format!("no framing {other:?}").into()),
            },
        }
    }

    fn serve(&self, framing: impl Framing + Clone + Send + 'static) -> Outcome {
        let mut server =
            Server::bind(format!("127.0.0.1:{}", self.port))?.framing(framing).limits(self.limits());
        for _ in 0..self.layers {
            server = server.layer(|_| PassThrough);
        }
        let reactor = match self.strategy.as_str() {
            "single" => Reactor::new(SingleReactor::new()),
            "pool" => Reactor::new(WorkerPool::new(self.threads)),
            "threads" => Reactor::new(ThreadPerConnection::max(MAX_THREADS)),
            other => return Err(format!("no strategy {other:?}; use single, pool or threads").into()),
        };
        let addrs = server.local_addrs();
        let mut reactor = match self.mode.as_str() {
            "echo" => reactor.service(server, packet_fn(|session, packet| Ok(session.send(packet)?))),
            "broadcast" => {
                let all = server.handle();
                let tell_all = packet_fn(move |_, packet| {
                    all.broadcast(packet)?;
                    Ok(())
                });
                reactor.service(server, tell_all)
            }
            "link" => {
                let mut waiting = None;
                let pair = session_fn(
                    move |session| {
                        match waiting.take() {
                            Some(other) => session.link(other)?,
                            None => {
                                session.pause();
                                waiting = Some(session.id());
                            }
                        }
                        Ok(())
                    },
                    |_, (), _| Ok(()),
                );
                reactor.service(server, pair)
            }
            other => return Err(format!("no mode {other:?}; use echo, broadcast or link").into()),
        };
        for _ in 0..self.services {
            // With a closure of its own: one that two services share would not be inlined.
            let idle = packet_fn(|_, _| Ok(()));
            reactor = reactor.service(Server::bind("127.0.0.1:0")?.framing(Raw::new()), idle);
        }
        let running = reactor.stop_on_signal(GRACE).spawn()?;
        for addr in addrs {
            println!("listening on {addr}");
        }
        Ok(running.wait()?)
    }

    /// The framings use the frame limit as their maximum. An outbox has room for two of the largest packets.
    fn limits(&self) -> Limits {
        let room = self.max.saturating_add(64).saturating_mul(2).max(4 << 20);
        Limits::default().frame(self.max).outbox_hard(room).idle_timeout(IDLE)
    }
}

/// A layer that changes nothing, to measure the cost of having one.
struct PassThrough;

impl Layer for PassThrough {
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        io.open();
        Ok(io.plain(wire))
    }

    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }
}

fn number<N: std::str::FromStr<Err = std::num::ParseIntError>>(
    name: &str,
    value: &str,
) -> Result<N, Box<dyn Error>> {
    value.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => format!("{name} {value} is too large").into(),
        _ => format!("{name} {value:?} is no number").into(),
    })
}

fn hex(digits: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = digits.chars().map(digit).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or("sep: takes pairs of hex digits")?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

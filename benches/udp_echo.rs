//! cargo bench --bench udp_echo [-- ROUNDS]
//!
//! What an echo over UDP costs a server: CPU time, in user space and in the kernel, for each datagram of 64 bytes. Beside
//! framewire on one thread stand loops that do nothing else, over the same sockets: `std` with a call for each datagram
//! (`recv_from`, `send_to`), and on Linux `mmsg` with a call for up to 32 of them (`recvmmsg`, `sendmmsg`). Each is a process of its
//! own. 32 peers of this process send to one after the other, in rounds of a second, with one and with eight datagrams each in
//! flight; printed are the medians of the rounds, the least and the most, and the ratio to `std`. Lost datagrams are counted: what
//! comes while the kernel's buffer is full is dropped. Reads `/proc`, so it is for Linux alone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{error::Error, process::ExitCode};

#[cfg(target_os = "linux")]
#[path = "support/process.rs"]
mod process;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    // Without Cargo's own argument.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match bench::main(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod bench {
    pub(crate) fn main(_args: &[&str]) -> super::Outcome<()> {
        Err("it reads /proc, which only Linux has".into())
    }
}

#[cfg(target_os = "linux")]
mod bench {
    use std::{
        fs,
        io::{self, ErrorKind, IoSlice, IoSliceMut, Read},
        net::UdpSocket,
        os::fd::AsRawFd,
        thread,
        time::{Duration, Instant},
    };

    use framewire::{Server, packet_fn};
    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

    use super::{Outcome, process::Process};

    const ROUNDS: usize = 7;
    const ROUND: Duration = Duration::from_secs(1);
    const PEERS: usize = 32;
    const IN_FLIGHT: [usize; 2] = [1, 8];
    const SIZE: usize = 64;
    /// Datagrams of one call of `mmsg`.
    const BATCH: usize = 32;
    /// What has not come back within this time is lost.
    const PATIENCE: Duration = Duration::from_millis(200);
    const CONTESTANTS: [&str; 3] = ["std", "mmsg", "framewire"];

    pub(crate) fn main(args: &[&str]) -> Outcome<()> {
        match args {
            ["serve", contestant] => serve(contestant),
            [] => run(ROUNDS),
            [rounds] => run(rounds.parse()?),
            _ => Err("usage: cargo bench --bench udp_echo [-- ROUNDS]".into()),
        }
    }

    /// Another process: prints its address, and serves until its input ends.
    fn serve(contestant: &str) -> Outcome<()> {
        if contestant == "framewire" {
            let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
            let running = Server::bind_udp("127.0.0.1:0")?.spawn(echo)?;
            println!("{}", running.local_addr().ok_or("it is not IP")?);
            io::stdin().read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        println!("{}", socket.local_addr()?);
        let echo = match contestant {
            "std" => one_by_one,
            "mmsg" => in_batches,
            _ => return Err(format!("no contestant is called {contestant:?}").into()),
        };
        let serving = thread::spawn(move || echo(&socket).map_err(|error| error.to_string()));
        io::stdin().read_to_end(&mut Vec::new())?;
        if serving.is_finished() {
            serving.join().map_err(|_| "it panicked")??;
        }
        Ok(())
    }

    fn one_by_one(socket: &UdpSocket) -> Outcome<()> {
        let mut datagram = [0; 65_536];
        loop {
            let (n, from) = socket.recv_from(&mut datagram)?;
            if let Some(datagram) = datagram.get(..n) {
                socket.send_to(datagram, from)?;
            }
        }
    }

    /// Waits for the first datagram only, and sends back what it has got so far.
    fn in_batches(socket: &UdpSocket) -> Outcome<()> {
        let mut space = vec![[0; 65_536]; BATCH];
        let mut received = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut sent = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let fd = socket.as_raw_fd();
        loop {
            let mut slices: Vec<_> = space.iter_mut().map(|one| [IoSliceMut::new(one)]).collect();
            let got = recvmmsg(fd, &mut received, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
            let got: Vec<(usize, Option<SockaddrIn>)> = got.map(|one| (one.bytes, one.address)).collect();
            let slices = space.iter().zip(&got);
            let slices: Vec<_> = slices.map(|(one, (n, _))| [IoSlice::new(&one[..*n])]).collect();
            let addrs: Vec<_> = got.iter().map(|(_, from)| *from).collect();
            sendmmsg(fd, &mut sent, &slices, addrs, [], MsgFlags::empty())?;
        }
    }

    /// What a contestant has done in one round.
    struct Round {
        echoed: u64,
        lost: u64,
        /// CPU time of all threads, in nanoseconds.
        cpu: u64,
        took: Duration,
    }

    fn run(rounds: usize) -> Outcome<()> {
        let contestants =
            CONTESTANTS.map(|name| Contestant::start(name).map(|contestant| (name, contestant)));
        let contestants = contestants.into_iter().collect::<Outcome<Vec<_>>>()?;
        for in_flight in IN_FLIGHT {
            let mut measured: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
            // The first is to warm up.
            for round in 0..=rounds {
                for ((_, contestant), measured) in contestants.iter().zip(&mut measured) {
                    let done = contestant.round(in_flight)?;
                    if round > 0 {
                        measured.push(done);
                    }
                }
            }
            println!(
                "{PEERS} peers, {in_flight} in flight each, {SIZE} bytes, {rounds} rounds of {ROUND:?}:"
            );
            let base = median(measured.first().ok_or("no contestant")?);
            for ((name, _), rounds) in contestants.iter().zip(&measured) {
                print(name, rounds, base);
            }
        }
        Ok(())
    }

    fn print(name: &str, rounds: &[Round], base: f64) {
        let costs = costs(rounds);
        let ends = (costs.first().copied().unwrap_or_default(), costs.last().copied().unwrap_or_default());
        let (median, lost) = (median(rounds), rounds.iter().map(|round| round.lost).sum::<u64>());
        let echoed: u64 = rounds.iter().map(|round| round.echoed).sum();
        let took: Duration = rounds.iter().map(|round| round.took).sum();
        println!(
            "{name:>10}: {median:6.0} ns of CPU for each ({:.0} to {:.0}), {:.2} of std; {:.0} a second, {lost} lost",
            ends.0,
            ends.1,
            median / base,
            echoed as f64 / took.as_secs_f64(),
        );
    }

    /// The CPU time for each datagram in nanoseconds, sorted.
    fn costs(rounds: &[Round]) -> Vec<f64> {
        let mut costs: Vec<f64> =
            rounds.iter().map(|one| one.cpu as f64 / one.echoed.max(1) as f64).collect();
        costs.sort_by(f64::total_cmp);
        costs
    }

    fn median(rounds: &[Round]) -> f64 {
        costs(rounds).get(rounds.len() / 2).copied().unwrap_or_default()
    }

    /// A server. It ends when this is dropped.
    struct Contestant {
        process: Process,
        peers: Vec<UdpSocket>,
    }

    impl Contestant {
        fn start(name: &str) -> Outcome<Self> {
            let process = Process::start(&["serve", name])?;
            let mut peers = Vec::with_capacity(PEERS);
            for _ in 0..PEERS {
                let peer = UdpSocket::bind("127.0.0.1:0")?;
                peer.connect(process.addr)?;
                peer.set_read_timeout(Some(PATIENCE))?;
                peers.push(peer);
            }
            Ok(Self { process, peers })
        }

        /// Each peer sends as many as may be in flight, and then each takes what has come back, again and again.
        fn round(&self, in_flight: usize) -> Outcome<Round> {
            let (before, begun) = (self.cpu()?, Instant::now());
            let mut round = Round { echoed: 0, lost: 0, cpu: 0, took: Duration::ZERO };
            let mut reply = [0; 2 * SIZE];
            while begun.elapsed() < ROUND {
                for peer in &self.peers {
                    for _ in 0..in_flight {
                        peer.send(&[7; SIZE])?;
                    }
                }
                for peer in &self.peers {
                    for left in (1..=in_flight).rev() {
                        match peer.recv(&mut reply) {
                            Ok(SIZE) => round.echoed += 1,
                            Ok(n) => return Err(format!("a reply of {n} bytes").into()),
                            Err(error)
                                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                            {
                                round.lost += left as u64;
                                break;
                            }
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
            round.took = begun.elapsed();
            round.cpu = self.cpu()?.saturating_sub(before);
            Ok(round)
        }

        /// The CPU time of its threads so far, in nanoseconds.
        fn cpu(&self) -> Outcome<u64> {
            let mut sum = 0;
            for task in fs::read_dir(format!("/proc/{}/task", self.process.child.id()))? {
                let text = fs::read_to_string(task?.path().join("schedstat"))?;
                let first = text.split_whitespace().next().ok_or("schedstat is empty")?;
                sum += first.parse::<u64>()?;
            }
            Ok(sum)
        }
    }
}

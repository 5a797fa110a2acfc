//! cargo bench --features tls --bench tls [-- ROUNDS]
//!
//! What TLS costs a server, beside a loop that does nothing else: `rustls` is its `ServerConnection` over non-blocking
//! sockets and level-triggered epoll, which echoes what it reads; `framewire` is an echo of packets with [`LengthPrefix`].
//! Both serve on one thread of a process of their own, with the same ECDSA P-256 certificate, TLS 1.3 and one ticket for
//! each handshake.
//! In each round both are started anew, one after the other, and measured by one thread of this process:
//!
//! | | |
//! |---|---|
//! | idle session | what 1,000 sessions that have echoed one message add to the process's memory (PSS), for each |
//! | 64 B, 16 KiB | CPU time, in user space and in the kernel, for each message that is echoed, 32 sessions with one each in flight. The messages begin with the length that framewire's framing needs, and so fill one record each |
//! | handshake | CPU time for each connection: a full handshake, an echo of 64 bytes, and the end on both sides |
//!
//! Printed are the medians of the rounds, the least and the most, and the median of the ratios to `rustls` of the same
//! round. Reads `/proc`, so it is for Linux alone.
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
            eprintln!("tls: {error}");
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
        io::{self, ErrorKind, Read, Write},
        net::{TcpListener, TcpStream},
        process,
        sync::Arc,
        thread,
        time::{Duration, Instant},
    };

    use framewire::{LengthPrefix, Server, TlsAcceptor, TlsIdentity, packet_fn};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use rustix::{
        buffer::spare_capacity,
        event::epoll::{self, CreateFlags, EventData, EventFlags},
    };
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
        client::Resumption,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        version,
    };
    use slab::Slab;

    use super::{Outcome, process::Process};

    const ROUNDS: usize = 7;
    const PART: Duration = Duration::from_secs(1);
    /// Sessions that are idle, and of them those that send while others are.
    const SESSIONS: usize = 1_000;
    const SENDERS: usize = 32;
    const SMALL: usize = 64;
    const LARGE: usize = 16 * 1024;
    const HEADER: usize = 4;
    const NAME: &str = "localhost";
    /// Everything that is waited for happens within this time, or the run has failed.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Descriptors that are needed for other things.
    const SPARE: u64 = 100;
    const CONTESTANTS: [&str; 2] = ["rustls", "framewire"];
    const MEASURES: [(&str, &str); 4] = [
        ("idle session", "bytes"),
        ("64 B", "ns of CPU"),
        ("16 KiB", "ns of CPU"),
        ("handshake", "ns of CPU"),
    ];

    pub(crate) fn main(args: &[&str]) -> Outcome<()> {
        enough_descriptors()?;
        match args {
            ["serve", contestant, certificate, key] => serve(contestant, certificate, key),
            [] => run(ROUNDS),
            [rounds] => run(rounds.parse()?),
            _ => Err("usage: cargo bench --features tls --bench tls [-- ROUNDS]".into()),
        }
    }

    /// Raises the limit of descriptors as far as it goes.
    fn enough_descriptors() -> Outcome<()> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let needed = u64::try_from(SESSIONS)? + SPARE;
        if hard < needed {
            return Err(format!("it needs {needed} descriptors, and the limit is {hard}").into());
        }
        Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
    }

    /// Another process: prints its address, and serves until its input ends.
    fn serve(contestant: &str, certificate: &str, key: &str) -> Outcome<()> {
        if contestant == "framewire" {
            let acceptor = TlsAcceptor::new(TlsIdentity::from_pem(certificate, key)?)?;
            let server = Server::bind("127.0.0.1:0")?.framing(LengthPrefix::u32_be()).tls(&acceptor);
            let running = server.spawn(packet_fn(|session, packet| Ok(session.send(packet)?)))?;
            println!("{}", running.local_addr().ok_or("it is not IP")?);
            io::stdin().read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&version::TLS13])?.with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate], key)?;
        config.ticketer = ring::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?);
        thread::spawn(move || {
            if let Err(error) = bare_loop(&listener, config.into()) {
                eprintln!("the bare loop: {error}");
                // The other process sees that its connections end.
                process::exit(1);
            }
        });
        io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    }

    const LISTENER: u64 = u64::MAX;

    fn bare_loop(listener: &TcpListener, config: Arc<ServerConfig>) -> Outcome<()> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut peers: Slab<Peer> = Slab::new();
        let (mut events, mut space) = (Vec::with_capacity(1_024), vec![0; 64 * 1024]);
        loop {
            epoll::wait(&epoll, spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                let token = event.data.u64();
                if token == LISTENER {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let entry = peers.vacant_entry();
                    let data = EventData::new_u64(u64::try_from(entry.key())?);
                    epoll::add(&epoll, &stream, data, EventFlags::IN)?;
                    entry.insert(Peer { stream, tls: ServerConnection::new(config.clone())?, waits: false });
                    continue;
                }
                let at = usize::try_from(token)?;
                let Some(peer) = peers.get_mut(at) else { continue };
                let waited = peer.waits;
                if !peer.serve(&mut space)? {
                    // Closing it takes it out of epoll.
                    peers.remove(at);
                } else if peer.waits != waited {
                    let interest = if peer.waits { EventFlags::OUT } else { EventFlags::IN };
                    epoll::modify(&epoll, &peer.stream, event.data, interest)?;
                }
            }
        }
    }

    /// A connection of the bare loop.
    struct Peer {
        stream: TcpStream,
        tls: ServerConnection,
        /// What it has to write does not fit into the socket. Until it does, nothing is read.
        waits: bool,
    }

    impl Peer {
        /// Returns `false` when it has ended.
        fn serve(&mut self, space: &mut [u8]) -> Outcome<bool> {
            let mut has_ended = false;
            if !self.waits {
                match self.tls.read_tls(&mut self.stream) {
                    Ok(0) => return Ok(false),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error.into()),
                }
                has_ended = self.tls.process_new_packets()?.peer_has_closed();
                loop {
                    match self.tls.reader().read(space) {
                        Ok(0) => break,
                        Ok(n) => self.tls.writer().write_all(&space[..n])?,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                if has_ended {
                    self.tls.send_close_notify();
                }
            }
            self.waits = false;
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.waits = true;
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(!has_ended)
        }
    }

    fn run(rounds: usize) -> Outcome<()> {
        if rounds == 0 {
            return Err("there are no rounds".into());
        }
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&version::TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // Every handshake is a full one.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);

        // Of each round and contestant, in this order, the measures.
        let mut measured: Vec<[[f64; 4]; 2]> = Vec::new();
        for round in 1..=rounds {
            let mut both = [[0.0; 4]; 2];
            // Who is first changes.
            for turn in 0..2 {
                let at = (round + turn) % 2;
                let process = Process::start(&["serve", CONTESTANTS[at], &certificate, &key])?;
                both[at] = process.measure(&config)?;
            }
            measured.push(both);
        }
        println!(
            "{rounds} rounds; {SESSIONS} idle sessions; {SENDERS} sessions that send, for {PART:?} each:"
        );
        for (measure, (name, unit)) in MEASURES.into_iter().enumerate() {
            for (at, contestant) in CONTESTANTS.into_iter().enumerate() {
                let figures = sorted(measured.iter().map(|both| both[at][measure]));
                let ratios = sorted(measured.iter().map(|both| both[at][measure] / both[0][measure]));
                println!(
                    "{name:>13} {contestant:>10}: {:9.0} {unit} ({:.0} to {:.0}), {:.2} of rustls ({:.2} to {:.2})",
                    figures[rounds / 2],
                    figures[0],
                    figures[rounds - 1],
                    ratios[rounds / 2],
                    ratios[0],
                    ratios[rounds - 1],
                );
            }
        }
        Ok(())
    }

    fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    type Client = StreamOwned<ClientConnection, TcpStream>;

    impl Process {
        fn measure(&self, config: &Arc<ClientConfig>) -> Outcome<[f64; 4]> {
            let (small, large) = (message(SMALL)?, message(LARGE)?);
            // What the process needs for its first session alone is no part of the others.
            let mut first = self.connect(config)?;
            echo(&mut first, &small)?;
            let before = self.pss()?;
            let mut clients = Vec::with_capacity(SESSIONS);
            for _ in 0..SESSIONS {
                let mut client = self.connect(config)?;
                echo(&mut client, &small)?;
                clients.push(client);
            }
            let idle = self.pss()?.saturating_sub(before) as f64 / SESSIONS as f64;
            clients.truncate(SENDERS);
            Ok([
                idle,
                self.echoes(&mut clients, &small)?,
                self.echoes(&mut clients, &large)?,
                self.handshakes(config, &small)?,
            ])
        }

        fn connect(&self, config: &Arc<ClientConfig>) -> Outcome<Client> {
            let stream = TcpStream::connect(self.addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let tls = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
            Ok(StreamOwned::new(tls, stream))
        }

        /// Each sends, and then each takes the reply, again and again. Returns nanoseconds of CPU for each message.
        fn echoes(&self, clients: &mut [Client], message: &[u8]) -> Outcome<f64> {
            let mut warm = false;
            loop {
                let (before, begun, mut echoed) = (self.cpu()?, Instant::now(), 0_u64);
                while begun.elapsed() < if warm { PART } else { PART / 10 } {
                    for client in &mut *clients {
                        client.write_all(message)?;
                        client.flush()?;
                    }
                    for client in &mut *clients {
                        take(client, message)?;
                        echoed += 1;
                    }
                }
                if warm {
                    return Ok(self.cpu()?.saturating_sub(before) as f64 / echoed as f64);
                }
                warm = true;
            }
        }

        /// Returns nanoseconds of CPU for each handshake.
        fn handshakes(&self, config: &Arc<ClientConfig>, message: &[u8]) -> Outcome<f64> {
            let (before, begun, mut made) = (self.cpu()?, Instant::now(), 0_u64);
            while begun.elapsed() < PART {
                let mut client = self.connect(config)?;
                echo(&mut client, message)?;
                client.conn.send_close_notify();
                client.flush()?;
                if client.read(&mut [0])? != 0 {
                    return Err("more than the echo".into());
                }
                made += 1;
            }
            Ok(self.cpu()?.saturating_sub(before) as f64 / made as f64)
        }

        /// The CPU time of its threads so far, in nanoseconds.
        fn cpu(&self) -> Outcome<u64> {
            let mut sum = 0;
            for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
                let text = fs::read_to_string(task?.path().join("schedstat"))?;
                let first = text.split_whitespace().next().ok_or("schedstat is empty")?;
                sum += first.parse::<u64>()?;
            }
            Ok(sum)
        }

        /// The memory that it has, with its share of what it has in common with others, in bytes.
        fn pss(&self) -> Outcome<u64> {
            let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("there is no PSS")?;
            let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
            Ok(kib * 1024)
        }
    }

    /// A packet of framewire's framing that takes so many bytes with its length.
    fn message(size: usize) -> Outcome<Vec<u8>> {
        let mut message = u32::try_from(size - HEADER)?.to_be_bytes().to_vec();
        message.resize(size, 7);
        Ok(message)
    }

    fn echo(client: &mut Client, message: &[u8]) -> Outcome<()> {
        client.write_all(message)?;
        client.flush()?;
        take(client, message)
    }

    fn take(client: &mut Client, message: &[u8]) -> Outcome<()> {
        let mut reply = [0; LARGE];
        let reply = reply.get_mut(..message.len()).ok_or("the message is too long")?;
        client.read_exact(reply)?;
        if reply == message { Ok(()) } else { Err("the reply is not what was sent".into()) }
    }
}

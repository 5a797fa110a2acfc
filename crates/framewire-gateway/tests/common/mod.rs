//! Peers of a gateway that speak its protocol byte by byte.
#![allow(dead_code, reason = "each test program uses a part of it")]

#[cfg(unix)]
pub(crate) mod bystander;
#[cfg(unix)]
pub(crate) mod running;

pub(crate) mod cases;
pub(crate) mod endpoints;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use framewire_gateway::{Dialect, Gateway, GatewayLimits, Keys, RunningGateway, protocol::Command};

/// No reply takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const KEY: &str = "a key";

/// On which threads a gateway of a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    Several,
    /// Each of several accepts for itself.
    Accepting,
}

pub(crate) const THREADS: &[Threads] = if cfg!(target_os = "linux") {
    &[Threads::One, Threads::Several, Threads::Accepting]
} else {
    &[Threads::One, Threads::Several]
};

pub(crate) fn start(threads: Threads, limits: GatewayLimits) -> RunningGateway {
    let keys = Keys::new([KEY]).expect("a key");
    let gateway = Gateway::new().clients("127.0.0.1:0").servers("127.0.0.1:0", Dialect::Md5, keys);
    let gateway = match threads {
        Threads::One => gateway,
        Threads::Several => gateway.workers(2),
        Threads::Accepting => gateway.workers(2).reuse_port(),
    };
    gateway.limits(limits).spawn().expect("started")
}

pub(crate) fn client_addr(gateway: &RunningGateway) -> SocketAddr {
    gateway.client_addrs()[0].socket_addr().expect("TCP")
}

pub(crate) fn server_addr(gateway: &RunningGateway) -> SocketAddr {
    gateway.server_addrs()[0].socket_addr().expect("TCP")
}

/// One link, of a client or of a server.
pub(crate) struct Peer {
    stream: TcpStream,
}

impl Peer {
    pub(crate) fn client(gateway: &RunningGateway) -> Self {
        Self::connect(client_addr(gateway))
    }

    pub(crate) fn server(gateway: &RunningGateway, id: u32) -> Self {
        let mut peer = Self::connect(server_addr(gateway));
        peer.prove(KEY.as_bytes(), id);
        // Until it is registered, a dial would be refused.
        let known = || gateway.snapshot().servers.iter().filter(|server| server.id == id).count();
        wait_until(|| known() > 0);
        peer
    }

    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect(addr).expect("connected"))
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        Self { stream }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Answers the challenge.
    pub(crate) fn prove(&mut self, key: &[u8], id: u32) {
        let challenge: [u8; 8] = self.take();
        self.write(&Dialect::Md5.answer(&challenge, &[0; 16], key, id));
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.write(&command.frame());
    }

    pub(crate) fn say(&mut self, conn: u32, payload: &[u8]) {
        self.write(&message(conn, payload));
    }

    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("the bytes come");
        bytes
    }

    /// Reads one frame, whole.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        self.try_frame().expect("a frame comes")
    }

    pub(crate) fn try_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = length.to_vec();
        frame.resize(4 + u32::from_le_bytes(length) as usize, 0);
        self.stream.read_exact(&mut frame[4..])?;
        Ok(frame)
    }

    pub(crate) fn expect(&mut self, frame: &[u8]) {
        let seen = self.frame();
        assert_eq!(seen, frame, "{} and {} bytes", seen.len(), frame.len());
    }

    pub(crate) fn expect_command(&mut self, command: Command) {
        self.expect(&command.frame());
    }

    /// Expects that the gateway ends the link, after whatever it still sends.
    pub(crate) fn expect_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the link is still there: {error}"),
        }
    }

    /// Expects that the gateway ends the link, and sends nothing more.
    pub(crate) fn expect_silent_end(&mut self) {
        let rest = self.expect_end();
        assert!(rest.is_empty(), "{rest:?}");
    }

    /// Asserts that nothing waits to be read: a message that is sent around the loop comes back first.
    pub(crate) fn expect_nothing(&mut self) {
        self.command(Command::New);
        let reply = self.frame();
        assert_eq!(reply[..9], [9, 0, 0, 0, 0, 0, 0, 0, 1], "the reply to New comes first");
    }

    /// Asks for a connection ID.
    pub(crate) fn new_conn(&mut self) -> u32 {
        self.command(Command::New);
        let reply: [u8; 13] = self.frame().try_into().expect("an Open");
        assert_eq!(reply[..9], [9, 0, 0, 0, 0, 0, 0, 0, 1]);
        u32::from_le_bytes([reply[9], reply[10], reply[11], reply[12]])
    }

    /// Dials, and returns the connection's ID; the other end reads its Accept.
    pub(crate) fn dial(&mut self, remote: u32, other: &mut Peer) -> u32 {
        let conn = self.new_conn();
        self.command(Command::Dial { conn, remote });
        self.expect_command(Command::Accept { conn, remote });
        let accept = other.frame();
        assert_eq!(accept[..9], [13, 0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(accept[9..13], conn.to_le_bytes());
        conn
    }
}

pub(crate) fn message(conn: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32 + 4;
    [&length.to_le_bytes(), &conn.to_le_bytes(), payload].concat()
}

pub(crate) fn wait_until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it does not come to pass");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nothing is left of links that have ended, and each connection that was opened was closed once.
pub(crate) fn audit(gateway: RunningGateway) {
    wait_until(|| {
        let (snapshot, metrics) = (gateway.snapshot(), gateway.metrics());
        let is_empty = snapshot.clients == 0 && snapshot.connections == 0 && snapshot.servers.is_empty();
        is_empty && metrics.opened <= metrics.closed
    });
    let metrics = gateway.metrics();
    assert_eq!(metrics.opened, metrics.closed, "none was closed twice");
    gateway.stop(PATIENCE).expect("stopped");
}

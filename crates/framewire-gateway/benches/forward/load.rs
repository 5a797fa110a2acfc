//! Many peers on one thread, who send, wait for their replies and send again.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use framewire_gateway::protocol::Command;
use mio::{Events, Interest, Poll, Token};

/// Bytes of a message.
const SIZE: usize = 64;
/// Both kinds of peers add eight bytes or four.
const GATEWAY_HEADER: usize = 8;
const ECHO_HEADER: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// Peers and, behind a gateway, its servers.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    peers: Vec<Peer>,
    servers: Vec<mio::net::TcpStream>,
    buffer: Vec<u8>,
}

struct Peer {
    stream: mio::net::TcpStream,
    /// What it sends, one after the other: a frame for each of its connections.
    frames: Vec<Vec<u8>>,
    next: usize,
    /// Bytes of a frame that was received in part.
    received: usize,
}

impl Load {
    /// Clients of a gateway, and the servers behind it.
    pub(crate) fn of_gateway(addr: SocketAddr, servers: Vec<TcpStream>, clients: usize) -> Self {
        let mut load = Self::new(addr, clients);
        load.servers = servers.into_iter().map(mio_stream).collect();
        for (number, server) in load.servers.iter_mut().enumerate() {
            let token = Token(load.peers.len() + number);
            load.poll.registry().register(server, token, Interest::READABLE).expect("registered");
        }
        load
    }

    /// Clients of an echo server.
    pub(crate) fn of_echo(addr: SocketAddr, clients: usize) -> Self {
        let mut load = Self::new(addr, clients);
        let frame = [&(SIZE as u32).to_be_bytes()[..], &[b'x'; SIZE]].concat();
        assert_eq!(frame.len(), ECHO_HEADER + SIZE);
        load.peers.iter_mut().for_each(|peer| peer.frames = vec![frame.clone()]);
        load
    }

    fn new(addr: SocketAddr, clients: usize) -> Self {
        let poll = Poll::new().expect("a poll");
        let peers = (0..clients).map(|number| {
            let mut stream = mio_stream(TcpStream::connect(addr).expect("connected"));
            poll.registry().register(&mut stream, Token(number), Interest::READABLE).expect("registered");
            Peer { stream, frames: Vec::new(), next: 0, received: 0 }
        });
        let peers = peers.collect();
        Self {
            poll,
            events: Events::with_capacity(1024),
            peers,
            servers: Vec::new(),
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Opens virtual connections of each client, each to the next server.
    pub(crate) fn dial(&mut self, each: usize, ids: &[u32]) {
        for number in 0..self.peers.len() * each {
            let peer = &mut self.peers[number / each];
            write(&mut peer.stream, &Command::New.frame());
            let open: [u8; 13] = read(&mut peer.stream);
            let conn = u32::from_le_bytes([open[9], open[10], open[11], open[12]]);
            let server = number % ids.len();
            let (remote, stream) = (ids[server], &mut self.servers[server]);
            write(&mut peer.stream, &Command::Dial { conn, remote }.frame());
            assert_eq!(read::<17>(&mut peer.stream)[..], Command::Accept { conn, remote }.frame()[..]);
            let _: [u8; 17] = read(stream);
            let length = SIZE as u32 + 4;
            let frame = [&length.to_le_bytes()[..], &conn.to_le_bytes(), &[b'x'; SIZE]].concat();
            assert_eq!(frame.len(), GATEWAY_HEADER + SIZE);
            peer.frames.push(frame);
        }
    }

    /// Keeps so many messages of each peer in flight, for this time. Returns how many replies came.
    pub(crate) fn run(&mut self, in_flight: usize, time: Duration) -> u64 {
        let began = Instant::now();
        for peer in &mut self.peers {
            peer.send(in_flight);
        }
        let (mut replies, mut owed) = (0, self.peers.len() * in_flight);
        while owed > 0 {
            assert!(began.elapsed() < time + PATIENCE, "{owed} replies are missing");
            self.poll.poll(&mut self.events, Some(PATIENCE)).expect("polled");
            let is_over = began.elapsed() >= time;
            for event in &self.events {
                let Token(number) = event.token();
                if let Some(peer) = self.peers.get_mut(number) {
                    let came = peer.receive(&mut self.buffer);
                    replies += came as u64;
                    if is_over {
                        owed -= came;
                    } else {
                        peer.send(came);
                    }
                } else if let Some(server) = self.servers.get_mut(number - self.peers.len()) {
                    echo(server, &mut self.buffer);
                }
            }
        }
        replies
    }
}

impl Peer {
    fn send(&mut self, messages: usize) {
        if messages == 0 {
            return;
        }
        let mut bytes = Vec::with_capacity(messages * self.frames[0].len());
        for _ in 0..messages {
            bytes.extend_from_slice(&self.frames[self.next]);
            self.next = (self.next + 1) % self.frames.len();
        }
        write(&mut self.stream, &bytes);
    }

    /// Reads all that is there. Returns how many replies were completed.
    fn receive(&mut self, buffer: &mut [u8]) -> usize {
        let mut bytes = self.received;
        while let Some(read) = read_some(&mut self.stream, buffer) {
            bytes += read;
        }
        let frame = self.frames[0].len();
        self.received = bytes % frame;
        bytes / frame
    }
}

/// Sends back all that is there.
fn echo(server: &mut mio::net::TcpStream, buffer: &mut [u8]) {
    while let Some(read) = read_some(server, buffer) {
        write(server, &buffer[..read]);
    }
}

fn mio_stream(stream: TcpStream) -> mio::net::TcpStream {
    stream.set_nodelay(true).expect("an option");
    stream.set_nonblocking(true).expect("an option");
    mio::net::TcpStream::from_std(stream)
}

fn read_some(stream: &mut mio::net::TcpStream, buffer: &mut [u8]) -> Option<usize> {
    match stream.read(buffer) {
        Ok(0) => panic!("a link has ended"),
        Ok(read) => Some(read),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Writes all of it; what is in flight fits into the buffers of the kernel, but for moments.
fn write(stream: &mut mio::net::TcpStream, mut bytes: &[u8]) {
    let began = Instant::now();
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(began.elapsed() < PATIENCE, "a peer does not read");
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn read<const N: usize>(stream: &mut mio::net::TcpStream) -> [u8; N] {
    let (mut bytes, mut have) = ([0; N], 0);
    let began = Instant::now();
    while have < N {
        match read_some(stream, &mut bytes[have..]) {
            Some(read) => have += read,
            None => {
                assert!(began.elapsed() < PATIENCE, "no reply comes");
                std::thread::yield_now();
            }
        }
    }
    bytes
}

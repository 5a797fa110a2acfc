use std::io::{self, Read, Write};

use socket2::{SockAddr, Socket, Type};

use super::PATIENCE;

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// A blocking client of a WebSocket, which knows nothing of the library's.
pub(crate) struct WebSocketPeer {
    pub(crate) socket: Socket,
    /// The head of the response.
    pub(crate) response: String,
}

/// What a client asks with. `fields` are further lines, each with its end.
pub(crate) fn request(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// A frame of a client: its first byte, and its payload, which is masked.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut wire = vec![first];
    match payload.len() {
        len @ 0..126 => wire.push(0x80 | len as u8),
        len @ 126..65_536 => {
            wire.push(0xfe);
            wire.extend((len as u16).to_be_bytes());
        }
        len => {
            wire.push(0xff);
            wire.extend((len as u64).to_be_bytes());
        }
    }
    wire.extend(MASK);
    wire.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    wire
}

impl WebSocketPeer {
    /// Asks, and reads the head of the response.
    pub(crate) fn ask(addr: &SockAddr, request: &str) -> Self {
        let mut peer = Self::connect(addr);
        peer.write(request.as_bytes());
        while !peer.response.ends_with("\r\n\r\n") {
            let byte = peer.read(1)[0];
            peer.response.push(byte.into());
        }
        peer
    }

    pub(crate) fn connect(addr: &SockAddr) -> Self {
        let socket = Socket::new(addr.domain(), Type::STREAM, None).expect("sockets are there");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        socket.set_write_timeout(Some(PATIENCE)).expect("not zero");
        socket.connect(addr).expect("the server listens");
        Self { socket, response: String::new() }
    }

    /// A WebSocket at `target`.
    pub(crate) fn open(addr: &SockAddr, target: &str) -> Self {
        let peer = Self::ask(addr, &request(target, ""));
        assert!(peer.response.starts_with("HTTP/1.1 101 "), "{}", peer.response);
        peer
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        (&self.socket).write_all(bytes).expect("the server reads");
    }

    pub(crate) fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        self.write(&client_frame(first, payload.as_ref()));
    }

    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        (&self.socket).read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    /// The next frame: its first byte, and its payload.
    pub(crate) fn recv(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(2);
        let len = match head[1] {
            126 => u16::from_be_bytes(self.read(2).try_into().expect("two bytes")).into(),
            127 => u64::from_be_bytes(self.read(8).try_into().expect("eight bytes")) as usize,
            len => len.into(),
        };
        (head[0], self.read(len))
    }

    /// The next frame is a close frame: its code, and its reason.
    pub(crate) fn recv_close(&mut self) -> (u16, String) {
        let (first, payload) = self.recv();
        assert_eq!(first, CLOSE, "{}", payload.escape_ascii());
        let (code, reason) = payload.split_first_chunk().expect("a code");
        (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned())
    }

    /// Everything up to the end of the stream, which is no reset.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        (&self.socket)
            .read_to_end(&mut rest)
            .map(|_| rest)
            .unwrap_or_else(|error: io::Error| panic!("{error}"))
    }

    pub(crate) fn assert_end(&mut self) {
        assert_eq!(self.rest(), b"", "nothing but the end is to come");
    }
}

/// The client's side of a stream of bytes over WebSocket, without a socket.
#[derive(Debug, Clone, Default)]
pub(crate) struct WebSocketStream {
    unread: Vec<u8>,
    is_open: bool,
    was_ended: bool,
}

impl WebSocketStream {
    /// What is sent first. It does not wait for the reply.
    pub(crate) fn greet(&self) -> Vec<u8> {
        request("/", "").into_bytes()
    }

    /// Plain bytes as they are to be sent, in a message for each 10,000.
    pub(crate) fn encode(&self, plain: &[u8]) -> Vec<u8> {
        plain.chunks(10_000).flat_map(|chunk| client_frame(BINARY, chunk)).collect()
    }

    pub(crate) fn end(&self) -> Vec<u8> {
        client_frame(CLOSE, &1000_u16.to_be_bytes())
    }

    /// The plain bytes that came with `wire`.
    pub(crate) fn decode(&mut self, wire: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(wire);
        if !self.is_open {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else { return Vec::new() };
            if self.unread.starts_with(b"HTTP/1.1 503 ") {
                // It has closed before it was asked.
                return Vec::new();
            }
            assert!(self.unread.starts_with(b"HTTP/1.1 101 "), "{}", self.unread.escape_ascii());
            self.unread.drain(..end + 4);
            self.is_open = true;
        }
        let mut plain = Vec::new();
        while let Some((first, payload, len)) = self.frame() {
            match first {
                BINARY => plain.extend(payload),
                CLOSE => self.was_ended = true,
                other => panic!("a frame of kind {other:#x}"),
            }
            self.unread.drain(..len);
        }
        plain
    }

    /// The frame at the front of what was not read, if it is whole, and its length.
    fn frame(&self) -> Option<(u8, Vec<u8>, usize)> {
        let ([first, short], rest) = self.unread.split_first_chunk()?;
        let (len, rest) = match short {
            126 => rest.split_first_chunk().map(|(len, rest)| (u16::from_be_bytes(*len).into(), rest))?,
            127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len) as usize, rest))?,
            short => (usize::from(*short), rest),
        };
        let payload = rest.get(..len)?.to_vec();
        Some((*first, payload, self.unread.len() - rest.len() + len))
    }

    pub(crate) fn was_ended(&self) -> bool {
        self.was_ended
    }
}

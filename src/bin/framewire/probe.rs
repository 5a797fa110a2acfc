use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Shutdown, ToSocketAddrs};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::{Args, ValueEnum};
use framewire::{FrameError, Framing};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::spec::{self, FramingSpec};
use crate::splitter::{Piece, Splitter};

/// Options of `framewire probe`.
#[derive(Debug, Args)]
#[command(
    about = "Talk to a framed port: each line of input is sent as a packet, each packet is shown as a line",
    after_help = spec::HELP,
    after_long_help = format!("{}\n\n\
Examples:
  framewire probe 127.0.0.1:7000 --framing u32-be
  echo hello | framewire probe 127.0.0.1:7000 -f lines
  framewire probe 127.0.0.1:7000 -f varint --send-hex '08 96 01' --show hex --count 1

Packets go to standard output, everything else to standard error. It ends
when the peer does, when --count packets have come, or --wait seconds after
its own input has ended.
Exit status: 0, 1 when the peer broke the framing or the connection, 2 when
it could not begin or the input is no packet.", spec::HELP)
)]
pub(crate) struct ProbeArgs {
    /// host:port, [v6]:port or unix:/path
    addr: String,
    /// How packets are cut from the stream, both ways
    #[arg(short, long, value_name = "SPEC")]
    framing: FramingSpec,
    /// Send this text as a packet instead of reading standard input; may be repeated
    #[arg(long, value_name = "TEXT")]
    send: Vec<String>,
    /// The same, in hex; sent after the texts
    #[arg(long, value_name = "HEX", value_parser = crate::hex::decode)]
    send_hex: Vec<std::vec::Vec<u8>>,
    /// Lines of standard input are hex
    #[arg(long)]
    hex_input: bool,
    /// How packets are shown
    #[arg(long, value_enum, default_value_t = Show::Text)]
    show: Show,
    /// End after so many packets
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Seconds to wait for more when the input has ended
    #[arg(short, long, value_name = "SECONDS", default_value_t = 3.0)]
    wait: f64,
    /// Most bytes of a packet
    #[arg(long, value_name = "BYTES")]
    max: Option<usize>,
}

/// A way to show a packet in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    /// as text, control characters and what is no UTF-8 escaped
    Text,
    /// as hex digits
    Hex,
    /// its length, hex and text
    Both,
}

/// Why a probe did not end well.
#[derive(Debug, Error)]
pub(crate) enum ProbeError {
    #[error("can not connect to {addr}: {source}")]
    Connect { addr: String, source: io::Error },
    #[error("{0}")]
    Input(String),
    #[error("the peer sent what this framing can not be: {0}")]
    Frame(#[from] FrameError),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("can not write to standard output: {0}")]
    Out(io::Error),
}

impl ProbeError {
    /// 2 before anything could happen, 1 after.
    pub(crate) fn status(&self) -> u8 {
        if matches!(self, Self::Connect { .. } | Self::Input(_)) { 2 } else { 1 }
    }
}

/// How often a quiet connection is left to look at the clock.
const TICK: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(10);

/// Sends, receives, shows.
pub(crate) fn run(args: &ProbeArgs) -> Result<(), ProbeError> {
    let framing = match args.max {
        Some(max) => args.framing.clone().max(max),
        None => args.framing.clone(),
    };
    let stream = connect(&args.addr)?;
    eprintln!("connected to {}", args.addr);
    let input = args.start_input(&stream, framing.clone())?;
    let mut probe =
        Probe { args, splitter: Splitter::new(framing), shown: 0, input, input_ended: None, refused: None };
    probe.receive(&stream)?;
    probe.refused.map_or(Ok(()), |error| Err(ProbeError::Broken(error)))
}

fn connect(addr: &str) -> Result<Socket, ProbeError> {
    let error = |source| ProbeError::Connect { addr: addr.to_owned(), source };
    let socket = match addr.strip_prefix("unix:") {
        Some(path) => connect_unix(path),
        None => connect_tcp(addr),
    };
    let socket = socket.map_err(error)?;
    socket.set_read_timeout(Some(TICK)).map_err(error)?;
    Ok(socket)
}

fn connect_unix(path: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn connect_tcp(addr: &str) -> io::Result<Socket> {
    let mut last = ErrorKind::AddrNotAvailable.into();
    for addr in addr.to_socket_addrs()? {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect_timeout(&addr.into(), CONNECT) {
            Ok(()) => return Ok(socket),
            Err(source) => last = source,
        }
    }
    Err(last)
}

impl ProbeArgs {
    /// Sends on a thread of its own, so that a peer that does not read can not keep us from reading.
    ///
    /// The receiver tells how the input has ended.
    fn start_input(&self, stream: &Socket, framing: FramingSpec) -> Result<Receiver<InputEnd>, ProbeError> {
        let error = |source| ProbeError::Connect { addr: self.addr.clone(), source };
        let stream = stream.try_clone().map_err(error)?;
        let texts = self.send.iter().map(|text| text.clone().into_bytes());
        let packets: Vec<Vec<u8>> = texts.chain(self.send_hex.iter().cloned()).collect();
        let sender = PacketSender { stream, framing, hex: self.hex_input };
        let (report, ended) = channel();
        std::thread::Builder::new()
            .name("input".into())
            .spawn(move || drop(report.send(sender.run(packets))))
            .map_err(error)?;
        Ok(ended)
    }
}

/// How sending has ended: well, or why not.
type InputEnd = Result<(), InputError>;

enum InputError {
    /// It is no packet, or could not be read.
    Wrong(String),
    /// The peer takes no more; what it said before is still to be read.
    Refused(io::Error),
}

struct PacketSender {
    stream: Socket,
    framing: FramingSpec,
    hex: bool,
}

impl PacketSender {
    fn run(mut self, packets: Vec<Vec<u8>>) -> InputEnd {
        if packets.is_empty() {
            self.send_lines()?;
        }
        for packet in packets {
            self.send(&packet)?;
        }
        // half a close: the peer learns that nothing more comes, and may still answer
        self.stream.shutdown(Shutdown::Write).map_err(InputError::Refused)
    }

    fn send_lines(&mut self) -> InputEnd {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = input.read_until(b'\n', &mut line);
            if read.map_err(|error| InputError::Wrong(format!("standard input: {error}")))? == 0 {
                return Ok(());
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if self.hex {
                let packet = crate::hex::decode(&String::from_utf8_lossy(text));
                self.send(&packet.map_err(InputError::Wrong)?)?;
            } else {
                self.send(text)?;
            }
        }
    }

    fn send(&mut self, packet: &[u8]) -> InputEnd {
        let mut frame = BytesMut::new();
        let encoded = self.framing.encode(packet, &mut frame);
        encoded.map_err(|error| InputError::Wrong(format!("not sent: {error}")))?;
        self.stream.write_all(&frame).map_err(InputError::Refused)
    }
}

struct Probe<'a> {
    args: &'a ProbeArgs,
    splitter: Splitter<FramingSpec>,
    shown: u64,
    input: Receiver<InputEnd>,
    input_ended: Option<Instant>,
    /// Why not all of the input was sent.
    refused: Option<io::Error>,
}

impl Probe<'_> {
    fn receive(&mut self, mut stream: &Socket) -> Result<(), ProbeError> {
        let mut chunk = vec![0; 64 * 1024];
        while !self.is_over()? {
            match stream.read(&mut chunk) {
                Ok(0) => {
                    while let Some(piece) = self.splitter.next_at_end()? {
                        self.show(piece)?;
                    }
                    eprintln!("closed by the peer");
                    return Ok(());
                }
                Ok(n) => {
                    self.splitter.push(chunk.get(..n).unwrap_or_default());
                    self.show_whole_packets()?;
                }
                Err(error) if is_quiet(&error) => {}
                Err(error) => return Err(ProbeError::Broken(error)),
            }
        }
        Ok(())
    }

    fn show_whole_packets(&mut self) -> Result<(), ProbeError> {
        while !self.has_all() {
            let Some(piece) = self.splitter.next()? else { return Ok(()) };
            self.show(piece)?;
        }
        Ok(())
    }

    fn show(&mut self, piece: Piece) -> Result<(), ProbeError> {
        let packet = match piece {
            Piece::Packet(packet) => packet,
            Piece::Rejected(error) => {
                eprintln!("rejected: {error}");
                return Ok(());
            }
        };
        self.shown += 1;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", line(&packet, self.args.show)).and_then(|()| out.flush()).map_err(ProbeError::Out)
    }

    fn has_all(&self) -> bool {
        self.args.count.is_some_and(|count| self.shown >= count)
    }

    /// Whether there is nothing more to wait for.
    fn is_over(&mut self) -> Result<bool, ProbeError> {
        match self.input.try_recv() {
            Ok(Ok(())) => self.input_ended = Some(Instant::now()),
            Ok(Err(InputError::Wrong(error))) => return Err(ProbeError::Input(error)),
            Ok(Err(InputError::Refused(error))) => {
                self.input_ended = Some(Instant::now());
                self.refused = Some(error);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        let waited = self.input_ended.map(|ended| ended.elapsed().as_secs_f64());
        if waited.is_some_and(|waited| waited >= self.args.wait) {
            eprintln!("the peer did not close within {} s", self.args.wait);
            return Ok(true);
        }
        Ok(self.has_all())
    }
}

fn is_quiet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn line(packet: &[u8], show: Show) -> String {
    match show {
        Show::Text => text(packet),
        Show::Hex => crate::hex::encode(packet),
        Show::Both => format!("{:>6}  {}  |{}|", packet.len(), crate::hex::encode(packet), text(packet)),
    }
}

/// Text as it is; what would disturb a terminal, or is no text, as `\n`, `\x1b` and the like.
fn text(packet: &[u8]) -> String {
    let mut line = String::new();
    for chunk in packet.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                c if c.is_control() => line.extend(c.escape_default()),
                c => line.push(c),
            }
        }
        line.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_not_disturb_a_terminal_and_stays_one_line() {
        assert_eq!(text("grüße\n\x1b[2J\\".as_bytes()), "grüße\\n\\u{1b}[2J\\\\");
        assert_eq!(text(b"a\xff\xfeb"), "a\\xff\\xfeb");
    }

    #[test]
    fn a_packet_is_shown_as_asked() {
        assert_eq!(line(b"hi", Show::Hex), "68 69");
        assert_eq!(line(b"hi", Show::Both), "     2  68 69  |hi|");
    }
}

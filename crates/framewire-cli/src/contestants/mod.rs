//! The servers that `framewire bench` compares, each run in a process of its own.
//!
//! All speak the same protocol: a frame is 4 bytes of big-endian length and that many bytes of payload, at most
//! [`MAX_FRAME`]; every frame is sent back as it came. Each is written the way its own documentation would have it,
//! with replies to one batch of input written together.
//!
//! Those that broadcast send the first frame of a connection back to it alone, and every later one to all connections.

mod coroutines;
mod faulty;
pub(crate) mod go;
mod keeper;
mod reactors;
mod threads;
mod tokio;

pub(crate) use keeper::{KeepArgs, end_with_stdin, keep};

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use clap::{Args, ValueEnum};

/// The longest payload that a contestant takes; bytes.
pub(crate) const MAX_FRAME: usize = 1 << 20;
/// Bytes of the length in front of each payload.
const PREFIX: usize = 4;

/// A server that is part of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuiltIn {
    /// framewire, one reactor thread
    FramewireSingle,
    /// framewire, a pool of reactor threads, one per core
    FramewirePool,
    /// framewire, a reactor thread per connection
    FramewireThreads,
    /// the standard library, a blocking thread per connection
    StdThreads,
    /// tokio, a task per connection, tokio-util's `LengthDelimitedCodec`
    Tokio,
    /// may, a stackful coroutine per connection
    May,
    /// flips one byte of the 50th reply: shows that the check works
    FaultyByte,
    /// ends after the 50th reply: shows that a crash is reported
    FaultyExit,
}

/// Runs one contestant until standard input ends.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Which one
    name: BuiltIn,
    /// Port on 127.0.0.1; 0 takes a free one, which is said on standard output
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// What to do with the frames
    #[arg(long, default_value = "echo")]
    duty: Duty,
}

/// What a contestant does with the frames that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Duty {
    /// Send each back
    Echo,
    /// Send each to all connections
    Broadcast,
}

impl Duty {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Broadcast => "broadcast",
        }
    }
}

impl BuiltIn {
    /// Returns `true` if it fails on purpose.
    pub(crate) fn is_faulty(self) -> bool {
        matches!(self, Self::FaultyByte | Self::FaultyExit)
    }

    /// Returns `true` if it can be told to broadcast.
    pub(crate) fn broadcasts(self) -> bool {
        matches!(self, Self::FramewireSingle | Self::FramewirePool | Self::FramewireThreads | Self::Tokio)
    }

    /// Descriptors that the server needs for each connection: a reactor of its own is a poll and a waker besides.
    pub(crate) fn descriptors_each(self) -> u64 {
        if self == Self::FramewireThreads { 3 } else { 1 }
    }
}

/// Serves until standard input ends; then the process ends, whatever is still open.
pub(crate) fn serve(args: &ServeArgs) -> io::Result<()> {
    keeper::end_with_stdin();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    match args.name {
        name if args.duty == Duty::Broadcast && !name.broadcasts() => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this contestant does not broadcast"))
        }
        BuiltIn::FramewireSingle => reactors::single(addr, args.duty),
        BuiltIn::FramewirePool => reactors::pool(addr, args.duty),
        BuiltIn::FramewireThreads => reactors::threads(addr, args.duty),
        BuiltIn::StdThreads => threads::serve(addr),
        BuiltIn::Tokio => tokio::serve(addr, args.duty),
        BuiltIn::May => coroutines::serve(addr),
        BuiltIn::FaultyByte => faulty::flip_a_byte(addr),
        BuiltIn::FaultyExit => faulty::exit_early(addr),
    }
}

/// Says where the server listens, which tells the parent that it does.
fn announce(addr: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "port {}", addr.port())?;
    out.flush()
}

/// Threads to use: the cores that this process may run on.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A listener with room for a burst of connections, which the standard library's own backlog of 128 is not.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// The echo of everything that blocks, in threads or in coroutines: one growing buffer, whole frames back in one write.
fn echo_blocking(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        match stream.read(room)? {
            0 => return Ok(()),
            n => filled += n,
        }
        let (whole, next) = whole_frames(buffer.get(..filled).unwrap_or_default())?;
        stream.write_all(buffer.get(..whole).unwrap_or_default())?;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if next > buffer.len() {
            buffer.resize(next, 0);
        }
    }
}

/// How many bytes of whole frames `bytes` begins with, and how long the frame behind them will be (0: not known yet).
fn whole_frames(bytes: &[u8]) -> io::Result<(usize, usize)> {
    let mut rest = bytes;
    while let Some((prefix, behind)) = rest.split_first_chunk::<PREFIX>() {
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame over the maximum"));
        }
        match behind.get(len..) {
            Some(behind) => rest = behind,
            None => return Ok((bytes.len() - rest.len(), PREFIX + len)),
        }
    }
    Ok((bytes.len() - rest.len(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_end_where_the_cut_off_one_begins() {
        assert_eq!(whole_frames(b"").unwrap(), (0, 0));
        assert_eq!(whole_frames(b"\0\0\0").unwrap(), (0, 0));
        assert_eq!(whole_frames(b"\0\0\0\x02h").unwrap(), (0, 6));
        assert_eq!(whole_frames(b"\0\0\0\x02hi\0\0\0\0").unwrap(), (10, 0));
        assert_eq!(whole_frames(b"\0\0\0\x02hi\0\0\0\x09x").unwrap(), (6, 13));
        assert!(whole_frames(b"\x7f\0\0\0").is_err());
    }

    /// Hands out its input in pieces and keeps what is written.
    struct Pieces<'a>(std::slice::Chunks<'a, u8>, Vec<u8>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.next().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Pieces<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_blocking_echo_gives_back_every_frame_however_the_input_is_cut() {
        let mut input = Vec::new();
        for len in [0_u32, 1, 5, 300, 9000] {
            input.extend_from_slice(&len.to_be_bytes());
            input.extend((0..len).map(|at| at as u8));
        }
        for piece in [1, 3, 4, 7, 1000] {
            let mut stream = Pieces(input.chunks(piece), Vec::new());
            echo_blocking(&mut stream).unwrap();
            assert_eq!(stream.1, input, "in pieces of {piece}");
        }
    }
}

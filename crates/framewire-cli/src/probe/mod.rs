mod args;
mod error;
mod receiver;
mod sender;

pub(crate) use args::ProbeArgs;
pub(crate) use error::ProbeError;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use socket2::Socket;

use self::receiver::PacketReceiver;
use self::sender::{Framed, InputEvent, PacketSender};
use crate::say;
use crate::trace::Trace;

/// How often the wait on a quiet connection is interrupted to check the clock and the input.
const TICK: Duration = Duration::from_millis(50);

/// Sends, receives and shows packets.
pub(crate) fn run(args: &ProbeArgs) -> Result<(), ProbeError> {
    let packets = args.framed_packets()?;
    let stream = args.connect()?;
    let trace = args.trace.then(|| Trace::new(args.show, args.show_bytes));
    let typed = args.packets.0.is_empty() && io::stdin().is_terminal();
    let hint = if typed { "; each line is sent as a packet, Ctrl-D ends the input" } else { "" };
    say(format_args!("connected to {}{hint}", args.addr));
    let input = args.start_input(&stream, packets, trace.clone())?;
    let mut receiver = PacketReceiver::new(args, trace, input);
    let end = match receiver.run(&stream) {
        // the reader of our output has seen enough
        Err(ProbeError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        end => end,
    };
    match receiver.left_out() {
        0 => end,
        _ if typed => end,
        lines => {
            if let Err(error) = end {
                say(format_args!("framewire: {error}"));
            }
            Err(ProbeError::LeftOut(lines))
        }
    }
}

impl ProbeArgs {
    /// Before there is a connection, so that a mistake here costs nothing.
    fn framed_packets(&self) -> Result<Vec<Framed>, ProbeError> {
        let framing = self.framing();
        let framed = |(number, packet): (usize, &Vec<u8>)| {
            Framed::new(&framing, packet.clone()).map_err(|source| ProbeError::NoPacket { number, source })
        };
        (1..).zip(&self.packets.0).map(framed).collect()
    }

    fn connect(&self) -> Result<Socket, ProbeError> {
        let socket = self.addr.connect().map_err(|source| self.no_connection(source))?;
        socket.set_read_timeout(Some(TICK)).map_err(|source| self.no_connection(source))?;
        Ok(socket)
    }

    /// Starts to send; the receiver tells what becomes of the input.
    fn start_input(
        &self,
        stream: &Socket,
        packets: Vec<Framed>,
        trace: Option<Trace>,
    ) -> Result<Receiver<InputEvent>, ProbeError> {
        let (report, events) = channel();
        let sender = PacketSender {
            stream: stream.try_clone().map_err(|source| self.no_connection(source))?,
            framing: self.framing(),
            hex_input: self.hex_input,
            keep_open: self.keep_open,
            trace,
            report,
        };
        std::thread::Builder::new()
            .name("input".into())
            .spawn(move || sender.run(&packets))
            .map_err(|source| self.no_connection(source))?;
        Ok(events)
    }

    fn no_connection(&self, source: io::Error) -> ProbeError {
        ProbeError::Connect { addr: self.addr.clone(), source }
    }
}

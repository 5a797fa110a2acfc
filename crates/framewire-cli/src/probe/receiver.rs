use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use framewire::framing::{BytesPreview, Deframed, Deframer};
use socket2::Socket;

use super::args::ProbeArgs;
use super::error::ProbeError;
use super::sender::{InputEvent, SendingError};
use crate::say;
use crate::spec::FramingSpec;
use crate::trace::{Direction, Trace};

/// Receives packets and shows them, until there is no more to wait for.
pub(super) struct PacketReceiver<'a> {
    args: &'a ProbeArgs,
    trace: Option<Trace>,
    deframer: Deframer<FramingSpec>,
    /// Packets shown.
    came: u64,
    input: Receiver<InputEvent>,
    input_ended: Option<Instant>,
    /// Lines of input that were no packet.
    left_out: u64,
    /// Why not all of the input was sent.
    refused: Option<io::Error>,
}

impl<'a> PacketReceiver<'a> {
    pub(super) fn new(args: &'a ProbeArgs, trace: Option<Trace>, input: Receiver<InputEvent>) -> Self {
        let deframer = Deframer::new(args.framing());
        Self { args, trace, deframer, came: 0, input, input_ended: None, left_out: 0, refused: None }
    }

    pub(super) fn run(&mut self, mut stream: &Socket) -> Result<(), ProbeError> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            self.handle_input()?;
            if self.has_all() {
                return Ok(());
            }
            if self.has_waited() {
                return self.leave();
            }
            match stream.read(&mut chunk) {
                Ok(0) => return self.handle_end(),
                Ok(n) => self.handle_received(chunk.get(..n).unwrap_or_default())?,
                Err(error) if is_quiet(&error) => {}
                Err(error) => return Err(ProbeError::Broken(error)),
            }
        }
    }

    /// Lines of input that were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn handle_input(&mut self) -> Result<(), ProbeError> {
        while let Ok(event) = self.input.try_recv() {
            match event {
                InputEvent::LeftOut => self.left_out += 1,
                InputEvent::Ended(end) => {
                    self.input_ended = Some(Instant::now());
                    match end {
                        Ok(()) => {}
                        Err(SendingError::Refused(error)) => self.refused = Some(error),
                        Err(SendingError::Fatal(error)) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_received(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        self.deframer.feed(bytes);
        self.show_packets()
    }

    fn handle_end(&mut self) -> Result<(), ProbeError> {
        self.deframer.end();
        self.show_packets()?;
        if let Some(trace) = &self.trace {
            trace.line(format_args!("{}    end", Direction::Received)).map_err(ProbeError::Output)?;
        }
        say("closed by the peer");
        self.handle_input()?;
        self.verdict()
    }

    /// The peer had its time.
    fn leave(&mut self) -> Result<(), ProbeError> {
        let waited = self.args.patience().unwrap_or_default();
        let held = self.deframer.held();
        if !held.is_empty() {
            return Err(ProbeError::Unfinished { have: held.len(), waited, seen: BytesPreview::new(held) });
        }
        say(format_args!("the peer did not close within {} s", waited.as_secs_f64()));
        self.verdict()
    }

    fn verdict(&mut self) -> Result<(), ProbeError> {
        if self.has_all() {
            return Ok(());
        }
        if let Some(error) = self.refused.take() {
            return Err(ProbeError::Broken(error));
        }
        match self.args.count {
            Some(asked) => Err(ProbeError::TooFew { came: self.came, asked: asked.get() }),
            None => Ok(()),
        }
    }

    /// As many as have come, and no more than were asked for.
    fn show_packets(&mut self) -> Result<(), ProbeError> {
        while !self.has_all() {
            let Some(deframed) = self.deframer.poll_frame()? else { break };
            match deframed {
                Deframed::Packet(packet) => {
                    self.came += 1;
                    show(self.args, self.trace.as_ref(), packet).map_err(ProbeError::Output)?;
                }
                Deframed::Rejected(error) => say(format_args!("rejected: {error}")),
            }
        }
        Ok(())
    }

    fn has_all(&self) -> bool {
        self.args.count.is_some_and(|count| self.came >= count.get())
    }

    fn has_waited(&self) -> bool {
        let waited = self.input_ended.map(|ended| ended.elapsed());
        waited.zip(self.args.patience()).is_some_and(|(waited, patience)| waited >= patience)
    }
}

fn show(args: &ProbeArgs, trace: Option<&Trace>, packet: &[u8]) -> io::Result<()> {
    if let Some(trace) = trace {
        return trace.packet(Direction::Received, packet);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", args.show.line(packet, args.show_bytes.unwrap_or(usize::MAX)))?;
    out.flush()
}

fn is_quiet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

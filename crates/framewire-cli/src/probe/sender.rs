use std::io::{self, BufRead, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::Sender;

use bytes::BytesMut;
use framewire::{EncodeError, Framing};
use socket2::Socket;

use super::error::ProbeError;
use crate::hex;
use crate::say;
use crate::spec::FramingSpec;
use crate::trace::{Direction, Trace};

/// Sends the input, on a thread of its own, so that a peer that does not read cannot keep us from reading.
pub(super) struct PacketSender {
    pub(super) stream: Socket,
    pub(super) framing: FramingSpec,
    /// Lines of standard input are hex.
    pub(super) hex_input: bool,
    /// Leave our direction open at the end.
    pub(super) keep_open: bool,
    pub(super) trace: Option<Trace>,
    pub(super) report: Sender<InputEvent>,
}

/// A packet and what it is on the wire.
pub(super) struct Framed {
    packet: Vec<u8>,
    frame: BytesMut,
}

impl Framed {
    pub(super) fn new(framing: &FramingSpec, packet: Vec<u8>) -> Result<Self, EncodeError> {
        let mut frame = BytesMut::new();
        framing.encode(&packet, &mut frame)?;
        Ok(Self { packet, frame })
    }
}

/// What the receiving side has to know of the input.
pub(super) enum InputEvent {
    /// A line was no packet; this was reported to the user.
    LeftOut,
    /// Nothing more is sent.
    Ended(Result<(), SendingError>),
}

pub(super) enum SendingError {
    /// The peer takes no more; what it sent before is still to be read.
    Refused(io::Error),
    /// Nothing goes on without standard input or output.
    Fatal(ProbeError),
}

impl PacketSender {
    /// Sends these packets or, if there are none, the lines of standard input.
    pub(super) fn run(mut self, packets: &[Framed]) {
        let end = if packets.is_empty() { self.send_lines() } else { self.send_all(packets) };
        let end = end.and_then(|()| self.end());
        // an error means that the receiving side is gone, and needs nothing any more
        let _ = self.report.send(InputEvent::Ended(end));
    }

    fn send_all(&mut self, packets: &[Framed]) -> Result<(), SendingError> {
        packets.iter().try_for_each(|packet| self.send(packet))
    }

    fn send_lines(&mut self) -> Result<(), SendingError> {
        let mut lines = Lines::new(io::stdin().lock(), self.longest_line());
        while let Some(line) = lines.next().map_err(|error| SendingError::Fatal(ProbeError::Input(error)))? {
            match self.packet(line) {
                Ok(packet) => self.send(&packet)?,
                Err(why) => {
                    say(format_args!("framewire: line {} was not sent: {why}", lines.number));
                    let _ = self.report.send(InputEvent::LeftOut);
                }
            }
        }
        Ok(())
    }

    /// Enough for the longest packet in hex, as `0xff, ` for each byte.
    fn longest_line(&self) -> usize {
        self.framing.max_frame().map_or(MIN_LINE, |max| max.saturating_mul(6).max(MIN_LINE))
    }

    /// Returns a line as a packet, or why it is none.
    fn packet(&self, line: Line<'_>) -> Result<Framed, String> {
        let packet = match line {
            Line::TooLong(most) => return Err(format!("it is longer than {most} bytes")),
            Line::Whole(line) if self.hex_input => {
                hex::decode(&String::from_utf8_lossy(line)).map_err(|error| error.to_string())?
            }
            Line::Whole(line) => line.to_vec(),
        };
        Framed::new(&self.framing, packet).map_err(|error| error.to_string())
    }

    fn send(&mut self, Framed { packet, frame }: &Framed) -> Result<(), SendingError> {
        if let Some(trace) = &self.trace {
            // before it is sent, so that it stands before its reply
            trace.packet(Direction::Sent, packet).map_err(output)?;
        }
        self.stream.write_all(frame).map_err(SendingError::Refused)
    }

    /// Closes our direction, unless told otherwise: the peer learns that nothing more comes, and may still reply.
    fn end(&self) -> Result<(), SendingError> {
        if self.keep_open {
            return Ok(());
        }
        if let Some(trace) = &self.trace {
            trace.line(format_args!("{}    end", Direction::Sent)).map_err(output)?;
        }
        match self.stream.shutdown(Shutdown::Write) {
            // the peer is gone, and the receiving side learns how
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended.map_err(SendingError::Refused),
        }
    }
}

fn output(error: io::Error) -> SendingError {
    SendingError::Fatal(ProbeError::Output(error))
}

/// A line may always be this long, in bytes.
const MIN_LINE: usize = 1 << 20;

/// Lines, without what ends them, of bounded length.
struct Lines<R> {
    input: R,
    line: Vec<u8>,
    /// Most bytes of a line.
    most: usize,
    /// Of the last line, from 1.
    number: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Whole(&'a [u8]),
    /// Longer than this many bytes.
    TooLong(usize),
}

impl<R: BufRead> Lines<R> {
    fn new(input: R, most: usize) -> Self {
        Self { input, line: Vec::new(), most, number: 0 }
    }

    fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let with_its_end = self.most as u64 + 2;
        if self.input.by_ref().take(with_its_end).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let Some(line) = self.line.strip_suffix(b"\n") else {
            if self.line.len() > self.most {
                self.input.skip_until(b'\n')?;
                return Ok(Some(Line::TooLong(self.most)));
            }
            return Ok(Some(Line::Whole(&self.line)));
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(if line.len() > self.most { Line::TooLong(self.most) } else { Line::Whole(line) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_without_their_ends_and_numbered() {
        let mut lines = Lines::new(&b"one\ntwo\r\n\nlast"[..], 4);
        for (number, line) in (1..).zip([&b"one"[..], b"two", b"", b"last"]) {
            assert_eq!(lines.next().unwrap(), Some(Line::Whole(line)));
            assert_eq!(lines.number, number);
        }
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_one_found() {
        let mut lines = Lines::new(&b"12345\n12345\r\n123456\n1234567890\nnext\n1234567890"[..], 4);
        for _ in 0..4 {
            assert_eq!(lines.next().unwrap(), Some(Line::TooLong(4)));
        }
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"next")));
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong(4)));
        assert_eq!(lines.next().unwrap(), None);
    }
}

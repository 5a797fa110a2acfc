use std::{io, time::Duration, time::Instant};

use bytes::{Buf, BytesMut};

use super::{ClientError, pulse::Pulse, secured::Secured};
use crate::{
    encode::Encode,
    framing::{EncodeError, Framing},
    reactor::{BlockingSocket, Deadline, deadline, now},
    session::{BeatStep, Heartbeat},
};

/// A buffer of more bytes than this is not kept for the next packet.
const KEPT: usize = 64 * 1024;

/// The socket, and what goes out through it: whole frames, one behind the other.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) socket: Secured,
    /// How long a call may take.
    pub(super) timeout: Option<Duration>,
    frame: BytesMut,
    scratch: BytesMut,
    /// What is left of a beat of which the kernel took only a part. It goes before everything else, and so is shorter than
    /// one frame.
    owed: BytesMut,
    pulse: Option<Pulse>,
    /// Why nothing more can be sent.
    over: Option<ClientError>,
}

impl Outgoing {
    pub(super) fn new(socket: BlockingSocket, timeout: Option<Duration>) -> Self {
        let (frame, scratch, owed) = Default::default();
        let socket = Secured::new(socket);
        Self { socket, timeout, frame, scratch, owed, pulse: None, over: None }
    }

    /// Sends one packet, within the timeout.
    pub(super) fn send(&mut self, framing: &impl Framing, packet: &dyn Encode) -> Result<(), ClientError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        self.encode(framing, packet)?;
        let until = deadline(self.timeout);
        self.pay(until)?;
        let written = write(&mut self.socket, &self.frame, until);
        let written = self.judge(written, self.frame.len());
        if self.frame.capacity() > KEPT {
            self.frame = BytesMut::new();
        }
        written
    }

    /// Writes a packet as the next frame. Whatever is there of an earlier one, whose encoding failed, is dropped.
    fn encode(&mut self, framing: &impl Framing, packet: &dyn Encode) -> Result<(), EncodeError> {
        self.frame.clear();
        self.frame.reserve(packet.size_hint().min(KEPT));
        framing.encode_with(packet, &mut self.scratch, &mut self.frame)?;
        if self.scratch.capacity() > KEPT {
            self.scratch = BytesMut::new();
        }
        Ok(())
    }

    /// Sends what is owed of a beat.
    fn pay(&mut self, until: Deadline) -> Result<(), ClientError> {
        let written = write(&mut self.socket, &self.owed, until);
        let sent = match &written {
            Ok(()) => self.owed.len(),
            Err((sent, _)) => *sent,
        };
        self.owed.advance(sent);
        match written {
            // Nothing is lost of what the caller has sent, and the rest is kept.
            Err((_, error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(ClientError::SendTimedOut(self.timeout.unwrap_or_default()))
            }
            written => self.judge(written, 0),
        }
    }

    /// Judges how a frame of `len` bytes was written.
    fn judge(&mut self, written: Result<(), (usize, io::Error)>, len: usize) -> Result<(), ClientError> {
        let after = self.timeout.unwrap_or_default();
        let error = match written {
            Ok(()) => return Ok(()),
            Err((0, error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(ClientError::SendTimedOut(after));
            }
            Err((sent, error)) if error.kind() == io::ErrorKind::TimedOut => {
                ClientError::CutOff { sent, len, after }
            }
            Err((_, error)) => ClientError::io(error),
        };
        self.over = Some(error.clone());
        Err(error)
    }

    pub(super) fn set_heartbeat(&mut self, heartbeat: Option<Heartbeat>) {
        self.pulse = heartbeat.map(|heartbeat| Pulse::new(heartbeat, now()));
    }

    /// Returns when the next beat is due.
    pub(super) fn next_beat(&self) -> Deadline {
        self.pulse.as_ref().filter(|_| self.over.is_none()).map(Pulse::due)
    }

    /// The peer has sent something: sends the beat that is due, if there is one.
    pub(super) fn hear(&mut self, framing: &impl Framing) -> Result<(), ClientError> {
        let Some(pulse) = &mut self.pulse else { return Ok(()) };
        let now = now();
        pulse.hear(now);
        self.beat(framing, now)
    }

    /// Sends the beat that is due, if there is one and the kernel has room for it.
    pub(super) fn beat(&mut self, framing: &impl Framing, now: Instant) -> Result<(), ClientError> {
        let Some(pulse) = self.pulse.as_mut().filter(|_| self.over.is_none()) else { return Ok(()) };
        match pulse.poll(now, !self.owed.is_empty()) {
            None => Ok(()),
            Some(BeatStep::Lost { beats, silence }) => Err(ClientError::HeartbeatLost { beats, silence }),
            Some(BeatStep::Skip) => match self.pay(Some(now)) {
                Err(ClientError::SendTimedOut(_)) => Ok(()),
                paid => paid,
            },
            Some(BeatStep::Send(heartbeat)) => {
                self.encode(framing, &heartbeat.packet())?;
                self.send_beat(now)
            }
        }
    }

    /// Sends what the kernel has room for of the frame, which is a beat. What is left is owed, unless it is the whole frame.
    fn send_beat(&mut self, now: Instant) -> Result<(), ClientError> {
        let sent = match write(&mut self.socket, &self.frame, Some(now)) {
            Ok(()) => self.frame.len(),
            Err((sent, error)) if error.kind() == io::ErrorKind::TimedOut => sent,
            failed => return self.judge(failed, self.frame.len()),
        };
        if sent > 0 {
            self.frame.advance(sent);
            self.owed = std::mem::take(&mut self.frame);
            if let Some(pulse) = &mut self.pulse {
                pulse.note_sent();
            }
        }
        Ok(())
    }

    /// Ends this side of the stream, behind what is owed.
    pub(super) fn end(&mut self, until: Deadline) -> Result<(), ClientError> {
        match &self.over {
            Some(ClientError::Ended) => return Ok(()),
            Some(error) => return Err(error.clone()),
            None => {}
        }
        self.pay(until)?;
        self.socket.shutdown_write(until).map_err(ClientError::io)?;
        self.over = Some(ClientError::Ended);
        Ok(())
    }
}

/// Writes all of `bytes`. An error comes with how many of them were taken before.
fn write(socket: &mut Secured, bytes: &[u8], until: Deadline) -> Result<(), (usize, io::Error)> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += socket.send(rest, until).map_err(|error| (sent, error))?;
    }
    socket.flush(until).map_err(|error| (sent, error))
}

//! From frames to messages: each frame becomes a part of a message for the framing [`Messages`], as its bytes come.

use super::{
    Carries,
    close::Violation,
    frame::{Head, Opcode, Role, apply_mask},
    utf8::Utf8,
};
use crate::{
    framing::{MessageKind, Messages, PartHeader},
    layer::LayerIo,
};

/// What was received so far: nothing of a message is held here.
#[derive(Debug)]
pub(super) struct Receiver {
    role: Role,
    carries: Carries,
    /// The message whose last frame has not come.
    message: Option<Message>,
    /// Bytes of the frame under way that are to come.
    left: u64,
    is_last: bool,
    mask: [u8; 4],
    utf8: Utf8,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    kind: MessageKind,
    /// Bytes announced by the frames so far.
    len: u64,
    /// Bytes of the headers of its parts.
    headers: usize,
}

/// A control frame that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control<'a> {
    Ping(&'a [u8]),
    Close(&'a [u8]),
}

/// What a call has come to.
pub(super) struct Progress {
    pub(super) used: usize,
    pub(super) control: Option<ControlFrame>,
}

/// A control frame, which is short.
pub(super) struct ControlFrame {
    opcode: Opcode,
    payload: [u8; 125],
    len: u8,
}

impl ControlFrame {
    pub(super) fn get(&self) -> Control<'_> {
        let payload = self.payload.get(..usize::from(self.len)).unwrap_or_default();
        if self.opcode == Opcode::Ping { Control::Ping(payload) } else { Control::Close(payload) }
    }
}

impl Receiver {
    pub(super) fn new(role: Role, carries: Carries) -> Self {
        Self { role, carries, message: None, left: 0, is_last: false, mask: [0; 4], utf8: Utf8::default() }
    }

    /// Passes on what is in `wire`, up to the next control frame that is to be answered.
    #[inline]
    pub(super) fn receive(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<Progress, Violation> {
        let mut rest = wire;
        loop {
            if self.left > 0 {
                let taken = self.pass(rest, io)?;
                rest = rest.get(taken..).unwrap_or_default();
                if self.left > 0 {
                    break;
                }
            }
            if io.room() < PartHeader::WIDTH {
                break;
            }
            let Some(head) = Head::parse(rest, self.role, 0)? else { break };
            let body = rest.get(head.size..).unwrap_or_default();
            if !head.opcode.is_control() {
                self.begin(&head, io)?;
                rest = body;
                continue;
            }
            let Some(payload) = usize::try_from(head.len).ok().and_then(|len| body.get(..len)) else { break };
            rest = body.get(payload.len()..).unwrap_or_default();
            if head.opcode != Opcode::Pong {
                let control = Some(control(&head, payload));
                return Ok(Progress { used: wire.len() - rest.len(), control });
            }
        }
        Ok(Progress { used: wire.len() - rest.len(), control: None })
    }

    /// A frame of a message begins.
    #[inline]
    fn begin(&mut self, head: &Head, io: &mut LayerIo<'_>) -> Result<(), Violation> {
        let kind = match (head.opcode, &self.message) {
            (Opcode::Continuation, None) => return Err(Violation::protocol("nothing to continue")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::protocol("a message within the fragments of another"));
            }
            (Opcode::Text, None) => MessageKind::Text,
            (_, message) => message.map_or(MessageKind::Binary, |message| message.kind),
        };
        let message = self.message.get_or_insert(Message { kind, len: 0, headers: 0 });
        message.len = message.len.saturating_add(head.len);
        (self.left, self.is_last, self.mask) = (head.len, head.is_last, head.mask);
        match self.carries {
            Carries::Bytes if kind == MessageKind::Text => {
                return Err(Violation {
                    code: 1003,
                    what: "a text message where only binary ones are taken",
                });
            }
            Carries::Bytes => {}
            Carries::Messages => {
                let limit = io.frame_limit().min(PartHeader::MOST as usize);
                if message.len > limit as u64 {
                    return Err(Violation { code: 1009, what: "a message longer than limits.frame" });
                }
                if head.len == 0 && head.is_last {
                    self.utf8.end()?;
                }
                if head.len > 0 || head.is_last {
                    let len = u32::try_from(head.len).unwrap_or(PartHeader::MOST);
                    let part = PartHeader { has_more: !head.is_last, kind, len };
                    message.headers = message.headers.saturating_add(PartHeader::WIDTH);
                    if message.headers > Messages::most_headers(limit) {
                        return Err(Violation { code: 1008, what: "a message in too many fragments" });
                    }
                    io.plain(&part.to_bytes());
                }
            }
        }
        if self.left == 0 {
            self.end_frame();
        }
        Ok(())
    }

    /// Passes on bytes of the payload under way. Returns how many.
    #[inline]
    fn pass(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, Violation> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let before = io.passed().len();
        let taken = io.plain(wire.get(..most).unwrap_or(wire));
        let passed = io.passed().get_mut(before..).unwrap_or_default();
        if self.role == Role::Server {
            apply_mask(passed, &mut self.mask);
        }
        self.left -= taken as u64;
        if self.message.is_some_and(|message| message.kind == MessageKind::Text) {
            if let Err(violation) = self.check(before, io) {
                // Without its last bytes, the message is never handed out.
                io.take_back(taken);
                return Err(violation);
            }
        }
        if self.left == 0 {
            self.end_frame();
        }
        Ok(taken)
    }

    /// Checks the text that was passed on behind the first `before` bytes.
    #[inline]
    fn check(&mut self, before: usize, io: &mut LayerIo<'_>) -> Result<(), Violation> {
        self.utf8.feed(io.passed().get(before..).unwrap_or_default())?;
        if self.left == 0 && self.is_last { self.utf8.end() } else { Ok(()) }
    }

    #[inline]
    fn end_frame(&mut self) {
        if self.is_last {
            self.message = None;
        }
    }
}

#[cold]
fn control(head: &Head, payload: &[u8]) -> ControlFrame {
    let mut control = ControlFrame { opcode: head.opcode, payload: [0; 125], len: 0 };
    if let Some(place) = control.payload.get_mut(..payload.len()) {
        place.copy_from_slice(payload);
        // A server's frames have a mask of zeros, which changes nothing.
        apply_mask(place, &mut { head.mask });
        control.len = u8::try_from(payload.len()).unwrap_or_default();
    }
    control
}

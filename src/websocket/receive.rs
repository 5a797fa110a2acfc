//! From frames to messages: each frame becomes a part of a message for the framing [`Messages`], as its bytes come.

use super::{
    Carries,
    close::Violation,
    frame::{Head, Opcode, Role, apply_mask},
    utf8::Utf8,
};
#[cfg(feature = "deflate")]
use super::{
    deflate::{Inflating, Step},
    frame::RSV1,
};
#[cfg(feature = "deflate")]
use crate::layer::Deflate;
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
    /// If it was agreed on.
    #[cfg(feature = "deflate")]
    deflate: Option<Box<Inflating>>,
    /// The last byte of a compressed message has come, but not all of what it stands for has come out.
    #[cfg(feature = "deflate")]
    is_finishing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    kind: MessageKind,
    /// Bytes announced by the frames so far.
    len: u64,
    /// Bytes of the headers of its parts.
    headers: usize,
    #[cfg(feature = "deflate")]
    is_compressed: bool,
    /// Bytes that have come out of a compressed message.
    #[cfg(feature = "deflate")]
    inflated: u64,
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
        Self {
            role,
            carries,
            message: None,
            left: 0,
            is_last: false,
            mask: [0; 4],
            utf8: Utf8::default(),
            #[cfg(feature = "deflate")]
            deflate: None,
            #[cfg(feature = "deflate")]
            is_finishing: false,
        }
    }

    /// Messages may come compressed.
    #[cfg(feature = "deflate")]
    pub(super) fn inflate_with(&mut self, deflate: Deflate) {
        self.deflate = Some(Box::new(Inflating::new(deflate)));
    }

    /// Bytes of memory.
    pub(super) fn capacity(&self) -> usize {
        #[cfg(feature = "deflate")]
        if let Some(deflate) = &self.deflate {
            return deflate.capacity();
        }
        0
    }

    /// The reserved bits that have a meaning in a frame of a message.
    #[inline]
    fn rsv(&self) -> u8 {
        #[cfg(feature = "deflate")]
        if self.deflate.is_some() {
            return RSV1;
        }
        0
    }

    /// Passes on what is in `wire`, up to the next control frame that is to be answered.
    #[inline]
    pub(super) fn receive(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<Progress, Violation> {
        let mut rest = wire;
        loop {
            #[cfg(feature = "deflate")]
            match self.inflate_rest(io)? {
                Rest::None => {}
                Rest::More => continue,
                Rest::NoRoom => {
                    io.call_again();
                    break;
                }
            }
            if self.left > 0 {
                let taken = self.pass(rest, io)?;
                rest = rest.get(taken..).unwrap_or_default();
                if self.left > 0 && (rest.is_empty() || io.room() == 0) {
                    break;
                }
                // What is compressed comes piece by piece.
                continue;
            }
            if io.room() < PartHeader::WIDTH {
                break;
            }
            let Some(head) = Head::parse(rest, self.role, self.rsv())? else { break };
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
        if head.is_compressed && self.message.is_some() {
            return Err(Violation::protocol("a fragment that says anew that it is compressed"));
        }
        let message = self.message.get_or_insert(Message {
            kind,
            len: 0,
            headers: 0,
            #[cfg(feature = "deflate")]
            is_compressed: head.is_compressed,
            #[cfg(feature = "deflate")]
            inflated: 0,
        });
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
                if message.len > message.most(limit) {
                    return Err(TOO_LONG);
                }
                #[cfg(feature = "deflate")]
                if message.is_compressed {
                    if self.left == 0 {
                        self.end_frame();
                    }
                    return Ok(());
                }
                if head.len == 0 && head.is_last {
                    self.utf8.end()?;
                }
                if head.len > 0 || head.is_last {
                    let len = u32::try_from(head.len).unwrap_or(PartHeader::MOST);
                    let part = PartHeader { has_more: !head.is_last, kind, len };
                    message.headers = message.headers.saturating_add(PartHeader::WIDTH);
                    if message.headers > Messages::most_headers(limit) {
                        return Err(IN_PIECES);
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
        #[cfg(feature = "deflate")]
        if self.message.is_some_and(|message| message.is_compressed) {
            return self.pass_compressed(wire, io);
        }
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
        if !self.is_last {
            return;
        }
        #[cfg(feature = "deflate")]
        if self.message.is_some_and(|message| message.is_compressed) {
            self.is_finishing = true;
            return;
        }
        self.message = None;
    }
}

#[cfg(feature = "deflate")]
impl Receiver {
    /// Lets come out what does not need further bytes.
    #[inline]
    fn inflate_rest(&mut self, io: &mut LayerIo<'_>) -> Result<Rest, Violation> {
        let is_compressed = self.message.is_some_and(|message| message.is_compressed);
        if !is_compressed {
            return Ok(Rest::None);
        }
        if io.room() < LEAST_ROOM {
            return Ok(Rest::NoRoom);
        }
        let has_more = self.deflate.as_ref().is_some_and(|deflate| deflate.has_more());
        if has_more {
            return self
                .inflate(io, |deflate, io| deflate.step(&[], |_| (), io).map(Some))
                .map(|_| Rest::More);
        }
        if !self.is_finishing {
            return Ok(Rest::None);
        }
        if self.inflate(io, Inflating::finish)?.is_none() {
            self.utf8.end()?;
            if let (Carries::Messages, Some(Message { kind, .. })) = (self.carries, self.message) {
                io.plain(&PartHeader { has_more: false, kind, len: 0 }.to_bytes());
            }
            (self.message, self.is_finishing) = (None, false);
        }
        Ok(Rest::More)
    }

    fn pass_compressed(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, Violation> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let (role, mut mask) = (self.role, self.mask);
        let unmask = |piece: &mut [u8]| {
            if role == Role::Server {
                apply_mask(piece, &mut mask);
            }
        };
        let wire = wire.get(..most).unwrap_or(wire);
        let used =
            self.inflate(io, |deflate, io| deflate.step(wire, unmask, io).map(Some))?.unwrap_or_default();
        self.mask.rotate_left(used % 4);
        self.left -= used as u64;
        if self.left == 0 {
            self.end_frame();
        }
        Ok(used)
    }

    /// Takes one step, and puts a header before what has come out. Returns how many bytes of the wire were used.
    fn inflate(
        &mut self,
        io: &mut LayerIo<'_>,
        step: impl FnOnce(&mut Inflating, &mut LayerIo<'_>) -> Result<Option<Step>, Violation>,
    ) -> Result<Option<usize>, Violation> {
        let (before, header) = match self.carries {
            Carries::Messages => (io.passed().len(), io.plain(&[0; PartHeader::WIDTH])),
            Carries::Bytes => (io.passed().len(), 0),
        };
        let Some(deflate) = &mut self.deflate else { return Ok(None) };
        let outcome = step(deflate, io).and_then(|step| {
            let made = step.as_ref().map_or(0, |step| step.made);
            self.take_part(before, header, made, io).map(|()| step.map(|step| step.used))
        });
        if outcome.is_err() {
            let passed = io.passed().len();
            io.take_back(passed - before);
        }
        outcome
    }

    /// Checks `made` bytes that have come out behind room for a header, and fills that in.
    fn take_part(
        &mut self,
        before: usize,
        header: usize,
        made: usize,
        io: &mut LayerIo<'_>,
    ) -> Result<(), Violation> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if made == 0 {
            io.take_back(header);
            return Ok(());
        }
        message.inflated = message.inflated.saturating_add(made as u64);
        message.headers = message.headers.saturating_add(header);
        if message.kind == MessageKind::Text {
            self.utf8.feed(io.passed().get(before + header..).unwrap_or_default())?;
        }
        if self.carries == Carries::Bytes {
            return Ok(());
        }
        let limit = io.frame_limit().min(PartHeader::MOST as usize);
        if message.inflated > limit as u64 {
            return Err(TOO_LONG);
        }
        if message.headers > Messages::most_headers(limit) {
            return Err(IN_PIECES);
        }
        let part = PartHeader { has_more: true, kind: message.kind, len: made as u32 };
        if let Some(place) = io.passed().get_mut(before..before + header) {
            place.copy_from_slice(&part.to_bytes());
        }
        Ok(())
    }
}

/// What comes out of a compressed message without further bytes.
#[cfg(feature = "deflate")]
enum Rest {
    None,
    More,
    /// There is no room for it in this call.
    NoRoom,
}

/// Bytes of room with which something is inflated.
#[cfg(feature = "deflate")]
const LEAST_ROOM: usize = 64;

const TOO_LONG: Violation = Violation { code: 1009, what: "a message longer than limits.frame" };
const IN_PIECES: Violation = Violation { code: 1008, what: "a message in too many fragments" };

impl Message {
    /// The most bytes that its frames may announce, if it may have `limit`.
    fn most(&self, limit: usize) -> u64 {
        #[cfg(feature = "deflate")]
        if self.is_compressed {
            // What does not become smaller becomes a little greater.
            return (limit as u64).saturating_add(limit as u64 / 64 + 64);
        }
        limit as u64
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

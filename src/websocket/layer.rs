//! A WebSocket as a layer: its handshake, and then its frames.

use std::{fmt, sync::Arc};

use bytes::BytesMut;

#[cfg(feature = "deflate")]
use super::deflate;
use super::{
    Options,
    client::Asking,
    close::{CloseFrame, Violation, WebSocketError},
    frame::Role,
    http::{MOST_HEAD, Request, Response, accept_of, head_len},
    receive::{Control, Progress, Receiver},
    send::Sender,
};
#[cfg(feature = "deflate")]
use crate::layer::Deflate;
use crate::{
    error::{CloseKind, CloseReason, LayerError},
    framing::Messages,
    layer::{Layer, LayerIo},
};

/// The layer of one WebSocket, made by [`WebSocket::layer`](super::WebSocket::layer) or
/// [`WebSocketClient::layer`](super::WebSocketClient::layer).
pub struct WebSocketLayer {
    phase: Phase,
    receiver: Receiver,
    sender: Sender,
    /// What a close frame of ours says.
    closing: CloseFrame,
    /// The session ends for a reason of this kind.
    ends: Option<CloseKind>,
}

enum Phase {
    /// A server waits for the head of a request, of which so many bytes were looked at.
    Awaits(Arc<Options>, usize),
    /// A client has to ask, or waits for the answer.
    Asks(Box<Asking>),
    Open,
    /// The peer has sent a close frame.
    Ended,
    /// There is nothing more to say: our close frame was sent, or an HTTP response in place of a WebSocket.
    Silent,
}

impl WebSocketLayer {
    pub(super) fn server(options: Arc<Options>) -> Self {
        let carries = options.carries;
        Self::new(Phase::Awaits(options, 0), Role::Server, carries)
    }

    pub(super) fn client(asking: Asking) -> Self {
        let carries = asking.carries();
        Self::new(Phase::Asks(Box::new(asking)), Role::Client, carries)
    }

    fn new(phase: Phase, role: Role, carries: super::Carries) -> Self {
        Self {
            phase,
            receiver: Receiver::new(role, carries),
            sender: Sender::new(role, carries),
            closing: CloseFrame::new(1000, ""),
            ends: None,
        }
    }

    /// Takes the head of a request, and answers it.
    fn answer(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        let Phase::Awaits(options, scanned) = &mut self.phase else { return Ok(0) };
        if wire.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            self.phase = Phase::Silent;
            return Err(LayerError::malformed("no HTTP request, which opens a WebSocket", wire));
        }
        let len = head_len(wire.get(..MOST_HEAD).unwrap_or(wire), scanned);
        let answer = match len.map(|len| wire.get(..len).unwrap_or(wire)) {
            None if wire.len() < MOST_HEAD => return Ok(0),
            None => Err(Response::new(431)),
            Some(head) => {
                Request::parse(head).map_err(Response::new).and_then(|request| accept(options, request))
            }
        };
        match answer {
            Ok((request, protocol, accept)) => {
                let options = options.clone();
                self.phase = Phase::Open;
                #[cfg(feature = "deflate")]
                let terms = options.deflate.as_ref().filter(|_| request.offers(deflate::is_acceptable));
                #[cfg(feature = "deflate")]
                self.compress(terms);
                #[cfg(feature = "deflate")]
                let extension = terms.map(|_| deflate::TERMS);
                #[cfg(not(feature = "deflate"))]
                let extension = None;
                write_upgrade(&accept, protocol.as_deref(), extension, io.wire());
                if let Some(protocol) = protocol {
                    io.set_protocol(protocol.into_boxed_bytes());
                }
                if options.carries == super::Carries::Messages {
                    io.set_framing(Messages::new().send_as(options.sends));
                }
                io.set_upgrade(request);
                io.open();
                Ok(len.unwrap_or_default())
            }
            Err(response) => {
                self.phase = Phase::Silent;
                response.write(io.wire());
                Err(WebSocketError::Answered { status: response.status() }.into())
            }
        }
    }

    fn ask(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        let Phase::Asks(asking) = &mut self.phase else { return Ok(0) };
        let Some(len) = asking.step(wire, io)? else { return Ok(0) };
        #[cfg(feature = "deflate")]
        let agreed = asking.agreed().cloned();
        #[cfg(feature = "deflate")]
        self.compress(agreed.as_ref());
        self.phase = Phase::Open;
        io.open();
        Ok(len)
    }

    /// Both sides compress, if that was agreed on.
    #[cfg(feature = "deflate")]
    fn compress(&mut self, deflate: Option<&Deflate>) {
        if let Some(deflate) = deflate {
            self.receiver.inflate_with(deflate.clone());
            self.sender.deflate_with(deflate.clone());
        }
    }

    fn receive(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        let mut total = 0;
        loop {
            let Progress { used, control } =
                match self.receiver.receive(wire.get(total..).unwrap_or_default(), io) {
                    Ok(progress) => progress,
                    Err(violation) => return Ok(self.fail(violation, wire, io)),
                };
            total += used;
            let Some(control) = control else { return Ok(total) };
            match control.get() {
                Control::Ping(payload) => self.sender.answer(payload, io.wire())?,
                Control::Close(payload) => {
                    match CloseFrame::parse(payload) {
                        Ok(frame) => {
                            self.phase = Phase::Ended;
                            self.closing = frame.clone();
                            io.set_peer_close(frame);
                            io.end();
                        }
                        Err(violation) => return Ok(self.fail(violation, wire, io)),
                    }
                    return Ok(total);
                }
            }
        }
    }

    /// Ends the stream. The peer is told what it has done wrong when what it has asked for before was answered.
    #[cold]
    fn fail(&mut self, violation: Violation, wire: &[u8], io: &mut LayerIo<'_>) -> usize {
        self.phase = Phase::Ended;
        self.closing = CloseFrame::new(violation.code, violation.what);
        io.fail(violation);
        wire.len()
    }
}

/// Decides on a request. Returns it, with the subprotocol and the proof of its key.
fn accept(options: &Options, request: Request) -> Result<(Request, Option<Box<str>>, String), Response> {
    if !request.is_upgrade() {
        return Err(match &options.http {
            Some(answer) if request.is_get() => answer(&request),
            Some(_) => Response::new(405).header("Allow", "GET"),
            None => Response::upgrade_required(),
        });
    }
    let accept = accept_of(request.key()?.as_bytes());
    if let Some(check) = &options.check {
        check(&request)?;
    }
    let ours = options.protocols.iter();
    let protocol =
        ours.into_iter().find(|ours| request.protocols().any(|theirs| theirs == &***ours)).cloned();
    Ok((request, protocol, accept))
}

fn write_upgrade(accept: &str, protocol: Option<&str>, extension: Option<&str>, wire: &mut BytesMut) {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    let protocol = protocol.map(|protocol| ["\r\nSec-WebSocket-Protocol: ", protocol]);
    let extension = extension.map(|extension| ["\r\nSec-WebSocket-Extensions: ", extension]);
    let chosen = protocol.into_iter().chain(extension).flatten();
    [head, accept].into_iter().chain(chosen).chain(["\r\n\r\n"]).for_each(|part| {
        wire.extend_from_slice(part.as_bytes());
    });
}

impl Layer for WebSocketLayer {
    #[inline]
    fn received(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<usize, LayerError> {
        match self.phase {
            Phase::Open => self.receive(wire, io),
            Phase::Awaits(..) => self.answer(wire, io),
            Phase::Asks(_) => self.ask(wire, io),
            Phase::Ended | Phase::Silent => Ok(wire.len()),
        }
    }

    fn received_end(&mut self) -> Result<(), LayerError> {
        match self.phase {
            Phase::Ended => Ok(()),
            // It has ended without a close frame: code 1006, in the words of RFC 6455, section 7.1.5.
            _ => Err(LayerError::truncated(0)),
        }
    }

    #[inline]
    fn send(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), LayerError> {
        self.sender.send(plain, wire)
    }

    fn closing(&mut self, reason: &CloseReason) {
        self.ends = Some(reason.kind());
        if !matches!(self.phase, Phase::Ended) {
            self.closing = CloseFrame::of(reason);
        }
    }

    fn end(&mut self, wire: &mut BytesMut) -> Result<(), LayerError> {
        match self.phase {
            Phase::Open | Phase::Ended => self.sender.close(&self.closing.payload(), wire)?,
            Phase::Awaits(..) => {
                let status = if self.ends == Some(CloseKind::Handshake) { 408 } else { 503 };
                Response::new(status).write(wire);
            }
            Phase::Asks(_) | Phase::Silent => {}
        }
        if !matches!(self.phase, Phase::Open) {
            self.phase = Phase::Silent;
        }
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.sender.capacity() + self.receiver.capacity()
    }
}

impl fmt::Debug for WebSocketLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Awaits(..) | Phase::Asks(_) => "handshake",
            Phase::Open => "open",
            Phase::Ended => "closed by the peer",
            Phase::Silent => "over",
        };
        f.debug_struct("WebSocketLayer").field("phase", &phase).finish_non_exhaustive()
    }
}

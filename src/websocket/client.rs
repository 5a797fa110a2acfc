//! The side that connects: RFC 6455, section 4.1.

use std::{fmt::Write, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use thiserror::Error;

use super::{
    Carries, WebSocketLayer,
    close::WebSocketError,
    http::{MOST_FIELDS, MOST_HEAD, accept_of, has_bare_lf, head_len},
};
#[cfg(feature = "deflate")]
use crate::layer::Deflate;
use crate::{
    error::LayerError,
    framing::{MessageKind, Messages},
    layer::LayerIo,
};

/// How this side opens a WebSocket, for [`Dial::websocket`](crate::Dial::websocket).
///
/// | option | default |
/// |---|---|
/// | [`protocols`](Self::protocols) | none are offered |
/// | [`header`](Self::header) | none but those of the handshake |
/// | [`send_as`](Self::send_as) | packets are sent as binary messages |
/// | [`bytes`](Self::bytes) | a message is a packet |
///
/// ```
/// use framewire::{Dial, websocket::WebSocketClient};
///
/// let chat = WebSocketClient::new("chat.example:8080", "/room/7")?.protocols(["chat.v1"])?;
/// let dial = Dial::to("chat.example:8080").websocket(chat);
/// # drop(dial);
/// # Ok::<(), framewire::websocket::InvalidRequest>(())
/// ```
///
/// The dial fails if the server refuses, answers with another key than it was asked to, or chooses a subprotocol that was
/// not offered: [`DialError`](crate::DialError) says which, and a
/// [`WebSocketError::Refused`](super::WebSocketError::Refused) has the status.
#[derive(Debug, Clone)]
pub struct WebSocketClient(Arc<Question>);

#[derive(Debug, Clone)]
struct Question {
    /// The request without its key, and without the empty line at its end.
    head: String,
    protocols: Vec<Box<str>>,
    sends: MessageKind,
    carries: Carries,
    #[cfg(feature = "deflate")]
    deflate: Option<Deflate>,
}

/// What was given cannot stand in the head of a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} cannot be {given:?}: {why}")]
pub struct InvalidRequest {
    what: &'static str,
    given: String,
    why: &'static str,
}

impl InvalidRequest {
    fn unless(is_fine: bool, what: &'static str, given: &str, why: &'static str) -> Result<(), Self> {
        if is_fine { Ok(()) } else { Err(Self { what, given: given.to_owned(), why }) }
    }
}

impl WebSocketClient {
    /// Asks the server `host` (with a port, if that is not 80 or 443) for `target`, such as `/chat?room=7`.
    ///
    /// # Errors
    /// If `host` or `target` contains a space or a control character, or a character outside of ASCII; if `target` does
    /// not begin with `/`.
    pub fn new(host: &str, target: &str) -> Result<Self, InvalidRequest> {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        InvalidRequest::unless(
            is_word(host),
            "a host",
            host,
            "it is a name or an address, and perhaps a port",
        )?;
        let is_target = is_word(target) && target.starts_with('/');
        InvalidRequest::unless(is_target, "a target", target, "it begins with / and has no spaces")?;
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\n"
        );
        let (sends, carries) = (MessageKind::Binary, Carries::Messages);
        Ok(Self(Arc::new(Question {
            head,
            protocols: Vec::new(),
            sends,
            carries,
            #[cfg(feature = "deflate")]
            deflate: None,
        })))
    }

    /// Adds a header field, as for a log-in.
    ///
    /// # Errors
    /// If the name is no token, or the value contains a control character.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidRequest> {
        InvalidRequest::unless(
            is_token(name),
            "the name of a header field",
            name,
            "it is a token of RFC 9110",
        )?;
        let is_line = !value.chars().any(char::is_control);
        InvalidRequest::unless(is_line, "the value of a header field", value, "it has control characters")?;
        Arc::make_mut(&mut self.0).head.push_str(&format!("{name}: {value}\r\n"));
        Ok(self)
    }

    /// Offers subprotocols, the preferred one first. Which of them the server has chosen is in
    /// [`Session::protocol`](crate::Session::protocol).
    ///
    /// # Errors
    /// If one of them is no token.
    pub fn protocols<P: Into<Box<str>>>(
        mut self,
        offered: impl IntoIterator<Item = P>,
    ) -> Result<Self, InvalidRequest> {
        let offered: Vec<Box<str>> = offered.into_iter().map(Into::into).collect();
        for protocol in &offered {
            InvalidRequest::unless(
                is_token(protocol),
                "a subprotocol",
                protocol,
                "it is a token of RFC 9110",
            )?;
        }
        let question = Arc::make_mut(&mut self.0);
        if !offered.is_empty() {
            let _ = write!(question.head, "Sec-WebSocket-Protocol: {}\r\n", offered.join(", "));
        }
        question.protocols = offered;
        Ok(self)
    }

    /// Sets how packets are sent: see [`Session::set_message_kind`](crate::Session::set_message_kind).
    #[must_use]
    pub fn send_as(mut self, kind: MessageKind) -> Self {
        Arc::make_mut(&mut self.0).sends = kind;
        self
    }

    /// Offers to compress messages: see [`WebSocket::deflate`](super::WebSocket::deflate).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        Arc::make_mut(&mut self.0).deflate = Some(deflate);
        self
    }

    /// Carries a stream of bytes in binary messages, for the framing of the dial: see
    /// [`WebSocket::bytes`](super::WebSocket::bytes).
    #[must_use]
    pub fn bytes(mut self) -> Self {
        Arc::make_mut(&mut self.0).carries = Carries::Bytes;
        self
    }

    /// Returns the layer of one connection.
    #[must_use]
    pub fn layer(&self) -> WebSocketLayer {
        WebSocketLayer::client(Asking {
            question: self.0.clone(),
            accept: None,
            scanned: 0,
            #[cfg(feature = "deflate")]
            is_compressed: false,
        })
    }
}

fn is_token(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_fine)
}

/// A handshake that a client is in.
#[derive(Debug)]
pub(super) struct Asking {
    question: Arc<Question>,
    /// What proves that the server has read the key, once that was sent.
    accept: Option<String>,
    scanned: usize,
    /// The server has agreed to compress.
    #[cfg(feature = "deflate")]
    is_compressed: bool,
}

impl Asking {
    pub(super) fn carries(&self) -> Carries {
        self.question.carries
    }

    /// Returns how messages are compressed, if that was agreed on.
    #[cfg(feature = "deflate")]
    pub(super) fn agreed(&self) -> Option<&Deflate> {
        self.question.deflate.as_ref().filter(|_| self.is_compressed)
    }

    /// Sends the request, or reads the response: its length, if it is whole and the WebSocket is open.
    pub(super) fn step(&mut self, wire: &[u8], io: &mut LayerIo<'_>) -> Result<Option<usize>, LayerError> {
        let Some(accept) = &self.accept else {
            let mut nonce = [0; 16];
            getrandom::fill(&mut nonce).map_err(LayerError::other)?;
            let key = STANDARD.encode(nonce);
            self.accept = Some(accept_of(key.as_bytes()));
            io.wire().extend_from_slice(self.question.head.as_bytes());
            #[cfg(feature = "deflate")]
            if self.question.deflate.is_some() {
                let offer = format!("Sec-WebSocket-Extensions: {}\r\n", super::deflate::TERMS);
                io.wire().extend_from_slice(offer.as_bytes());
            }
            io.wire().extend_from_slice(format!("Sec-WebSocket-Key: {key}\r\n\r\n").as_bytes());
            return Ok(None);
        };
        if wire.first().is_some_and(|byte| *byte != b'H') {
            return Err(LayerError::malformed("no HTTP response, which opens a WebSocket", wire));
        }
        let Some(len) = head_len(wire.get(..MOST_HEAD).unwrap_or(wire), &mut self.scanned) else {
            let is_long = wire.len() >= MOST_HEAD;
            return if is_long { Err(not("its head is longer than 8 KiB")) } else { Ok(None) };
        };
        let accept = accept.clone();
        let protocol = self.check(wire.get(..len).unwrap_or(wire), &accept)?;
        if let Some(protocol) = protocol {
            io.set_protocol(protocol.into_boxed_bytes());
        }
        if self.question.carries == Carries::Messages {
            io.set_framing(Messages::new().send_as(self.question.sends));
        }
        Ok(Some(len))
    }

    /// Checks a response. Returns the subprotocol that the server has chosen.
    fn check(&mut self, head: &[u8], accept: &str) -> Result<Option<Box<str>>, LayerError> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(head).map_err(|_| not("it is no HTTP response"))?;
        let (httparse::Status::Complete(_), Some(status)) = (parsed, response.code) else {
            return Err(not("it is no HTTP response"));
        };
        if has_bare_lf(head) {
            return Err(not("its lines end in LF alone"));
        }
        if status != 101 {
            return Err(WebSocketError::Refused { status }.into());
        }
        let is_of_websocket =
            |name: &str| name.get(..14).is_some_and(|front| front.eq_ignore_ascii_case("Sec-WebSocket-"));
        let repeats = |(at, field): (usize, &httparse::Header<'_>)| {
            let before = response.headers.iter().take(at);
            is_of_websocket(field.name)
                && before.into_iter().any(|other| other.name.eq_ignore_ascii_case(field.name))
        };
        if response.headers.iter().enumerate().any(repeats) {
            return Err(not("a header field of it comes twice"));
        }
        let value = |name: &str| {
            let mut found = response.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            let value = found.next().and_then(|field| std::str::from_utf8(field.value).ok());
            value.filter(|_| found.next().is_none()).map(str::trim)
        };
        let lists = |name: &str, token: &str| {
            value(name)
                .is_some_and(|list| list.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
        };
        if !lists("Upgrade", "websocket") || !lists("Connection", "upgrade") {
            return Err(not("it does not say Upgrade: websocket"));
        }
        if value("Sec-WebSocket-Accept") != Some(accept) {
            return Err(not("its key is not that of the request"));
        }
        let chosen = value("Sec-WebSocket-Protocol").map(str::to_owned);
        if let Some(extension) = value("Sec-WebSocket-Extensions").filter(|chosen| !chosen.is_empty()) {
            self.check_extension(extension)?;
        }
        let Some(chosen) = chosen else { return Ok(None) };
        let offered = self.question.protocols.iter().find(|offered| ***offered == *chosen);
        offered.cloned().map(Some).ok_or_else(|| not("it chooses a subprotocol that was not offered"))
    }

    #[cfg(feature = "deflate")]
    fn check_extension(&mut self, chosen: &str) -> Result<(), LayerError> {
        if self.question.deflate.is_none() {
            return Err(not("it chooses an extension that was not offered"));
        }
        super::deflate::check_answer(chosen).map_err(not)?;
        self.is_compressed = true;
        Ok(())
    }

    #[cfg(not(feature = "deflate"))]
    fn check_extension(&mut self, _: &str) -> Result<(), LayerError> {
        Err(not("it chooses an extension that was not offered"))
    }
}

fn not(what: &'static str) -> LayerError {
    WebSocketError::Handshake { what }.into()
}

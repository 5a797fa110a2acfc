//! The heads of HTTP messages that open a WebSocket: RFC 9112, and RFC 6455, section 4.

use std::{borrow::Cow, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use memchr::memmem;
use sha1::{Digest, Sha1};

/// The most bytes of a head.
pub(super) const MOST_HEAD: usize = 8 * 1024;
/// The most header fields of a head.
pub(super) const MOST_FIELDS: usize = 64;
const END: &[u8] = b"\r\n\r\n";
/// Of these, a request has one at most: with two, a proxy may have checked the other one.
const ONCE: [&str; 4] = ["Host", "Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version"];

/// Returns the length of the head at the front of `buf`, if it is whole. Nothing before `scanned` is looked at again,
/// which is moved on.
pub(super) fn head_len(buf: &[u8], scanned: &mut usize) -> Option<usize> {
    let from = scanned.saturating_sub(END.len() - 1);
    *scanned = buf.len();
    memmem::find(buf.get(from..)?, END).map(|at| from + at + END.len())
}

/// Returns `true` if a line of the head ends in LF alone. RFC 9112, section 2.2, lets a recipient take it, but not every
/// proxy sees the same lines then, nor the same end of the head.
pub(super) fn has_bare_lf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| !head.get(..at).is_some_and(|line| line.ends_with(b"\r")))
}

/// What the server has to prove that it has read the key: RFC 6455, section 4.2.2.
pub(super) fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// An HTTP request that asks for a WebSocket, or for something else: its target and its header fields.
///
/// The checks of [`WebSocket::check`](super::WebSocket::check) and [`WebSocket::http`](super::WebSocket::http) get it, and
/// [`Session::upgrade`](crate::Session::upgrade) returns it in `on_open`. A head has at most 8 KiB and 64 fields.
#[derive(Debug, Clone)]
pub struct Request {
    head: Box<[u8]>,
    is_get: bool,
    is_1_1: bool,
    target: Range<usize>,
    fields: Box<[(Range<usize>, Range<usize>)]>,
}

impl Request {
    /// # Errors
    /// The status to answer with.
    pub(super) fn parse(head: &[u8]) -> Result<Self, u16> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(_) if has_bare_lf(head) => return Err(400),
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(400),
            Err(httparse::Error::TooManyHeaders) => return Err(431),
            Err(_) => return Err(400),
        }
        let count =
            |name: &str| request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
        if ONCE.iter().any(|name| count(name) > 1) {
            return Err(400);
        }
        let hides = |field: &httparse::Header<'_>| {
            ONCE.iter().any(|name| field.name.eq_ignore_ascii_case(name))
                && std::str::from_utf8(field.value).is_err()
        };
        if request.headers.iter().any(hides) {
            // To a check, it would be as if the field were not there.
            return Err(400);
        }
        let place = |part: &[u8]| {
            let start = (part.as_ptr() as usize).saturating_sub(head.as_ptr() as usize);
            start..start.saturating_add(part.len())
        };
        Ok(Self {
            is_get: request.method == Some("GET"),
            is_1_1: request.version == Some(1),
            target: place(request.path.unwrap_or_default().as_bytes()),
            fields: request
                .headers
                .iter()
                .map(|field| (place(field.name.as_bytes()), place(field.value)))
                .collect(),
            head: head.into(),
        })
    }

    /// Returns the target, as it stands in the request: `/chat?room=7`.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.get(self.target.clone()).and_then(|part| std::str::from_utf8(part).ok()).unwrap_or_default()
    }

    /// Returns the target up to its query: `/chat`. It is not decoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// Returns the query, without the question mark: `room=7`. It is not decoded.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// Returns the value of the first header field of this name, whatever its case; `None` if there is none, or if it is
    /// not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers().find(|(field, _)| field.eq_ignore_ascii_case(name))?.1;
        std::str::from_utf8(value).ok()
    }

    /// Returns all header fields, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|(name, value)| {
            let name = self.head.get(name.clone()).and_then(|name| std::str::from_utf8(name).ok());
            (name.unwrap_or_default(), self.head.get(value.clone()).unwrap_or_default())
        })
    }

    /// Returns `Origin`: the page that a browser opens the WebSocket for, as `https://example.com`. Programs that are no
    /// browsers send what they like, or nothing.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.header("Origin")
    }

    /// Returns `true` if it asks for a WebSocket.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.lists("Upgrade", "websocket")
    }

    pub(super) fn is_get(&self) -> bool {
        self.is_get
    }

    /// Returns the subprotocols that the client offers, in its order of preference.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.list("Sec-WebSocket-Protocol")
    }

    /// The key of a request for a WebSocket.
    ///
    /// # Errors
    /// The response to answer with, if it is none.
    pub(super) fn key(&self) -> Result<&str, Response> {
        if !self.is_upgrade() {
            return Err(Response::upgrade_required());
        }
        let refused = |why: &'static str| Response::new(400).body("text/plain; charset=utf-8", why);
        if !self.is_get || !self.is_1_1 {
            return Err(refused("a WebSocket is opened by GET, with HTTP/1.1\n"));
        }
        if self.header("Host").is_none() {
            return Err(refused("a request without Host\n"));
        }
        let has_body = |(name, value): (&str, &[u8])| {
            name.eq_ignore_ascii_case("Transfer-Encoding")
                || name.eq_ignore_ascii_case("Content-Length") && value != b"0"
        };
        if self.headers().any(has_body) {
            // What a proxy takes for the body would be frames here.
            return Err(refused("a request for a WebSocket with a body\n"));
        }
        if !self.lists("Connection", "upgrade") {
            return Err(refused("Connection does not say Upgrade\n"));
        }
        if self.header("Sec-WebSocket-Version") != Some("13") {
            return Err(Response::upgrade_required());
        }
        let key = self.header("Sec-WebSocket-Key").unwrap_or_default();
        let is_key = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
        if is_key { Ok(key) } else { Err(refused("Sec-WebSocket-Key is not 16 bytes in base64\n")) }
    }

    /// Returns `true` if it offers an extension that is accepted.
    #[cfg(feature = "deflate")]
    pub(super) fn offers(&self, is_acceptable: impl Fn(&str) -> bool) -> bool {
        self.list("Sec-WebSocket-Extensions").any(is_acceptable)
    }

    fn lists(&self, field: &str, token: &str) -> bool {
        self.list(field).any(|listed| listed.eq_ignore_ascii_case(token))
    }

    /// The members of a list, which may be spread over several fields.
    fn list<'a>(&'a self, field: &str) -> impl Iterator<Item = &'a str> {
        let values = self.headers().filter(move |(name, _)| name.eq_ignore_ascii_case(field));
        values
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|member| !member.is_empty())
    }
}

/// An HTTP response in place of a WebSocket: a refusal, or a page. The connection ends behind it.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    fields: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Bytes,
}

impl Response {
    /// A response without a body. A status that is not 200 to 599 is sent as 500.
    #[must_use]
    pub fn new(status: u16) -> Self {
        let status = if (200..600).contains(&status) { status } else { 500 };
        Self { status, fields: Vec::new(), body: Bytes::new() }
    }

    /// Adds a header field. `Content-Length` and `Connection` are there in any case. Control characters, and in the name
    /// whatever is no letter, digit or dash, are left out: a value cannot begin another field.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Sets the body, of this `Content-Type`.
    #[must_use]
    pub fn body(self, content_type: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self.header("Content-Type", content_type) }
    }

    /// What is answered to a request that asks for no WebSocket, or for one of another version.
    pub(super) fn upgrade_required() -> Self {
        Self::new(426).header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13")
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn write(&self, wire: &mut BytesMut) {
        let Self { status, fields, body } = self;
        wire.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason_of(*status)).as_bytes());
        for (name, value) in fields {
            let name = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-');
            let value = value.chars().filter(|c| !c.is_control());
            let line: String = name.chain(": ".chars()).chain(value).chain("\r\n".chars()).collect();
            wire.extend_from_slice(line.as_bytes());
        }
        let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        wire.extend_from_slice(length.as_bytes());
        wire.extend_from_slice(body);
    }
}

/// The phrase of RFC 9110 for the statuses that are likely here. It may be empty.
fn reason_of(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Request, u16> {
        Request::parse(text.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for piece in 1..=head.len() {
            let (mut scanned, mut found, mut len) = (0, None, 0);
            while found.is_none() && len < head.len() {
                len = (len + piece).min(head.len());
                found = head_len(&head[..len], &mut scanned);
            }
            assert_eq!(found, Some(head.len()));
        }
    }

    #[test]
    fn a_request_shows_its_target_and_its_fields() {
        let request = request(
            "GET /chat?room=7 HTTP/1.1\nHost: a\nupgrade: WebSocket\nConnection: keep-alive, Upgrade\n\
             Origin: https://a.example\nSec-WebSocket-Protocol: v2 , v1\nSec-WebSocket-Protocol: v0\n\
             Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
        )
        .expect("it is a request");
        assert_eq!(
            (request.target(), request.path(), request.query()),
            ("/chat?room=7", "/chat", Some("room=7"))
        );
        assert_eq!(request.origin(), Some("https://a.example"));
        assert_eq!(request.protocols().collect::<Vec<_>>(), ["v2", "v1", "v0"]);
        assert_eq!(request.key().map_err(|response| response.status), Ok("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(request.header("nothing"), None);
    }

    #[test]
    fn what_is_no_request_for_a_websocket_is_answered_with_its_status() {
        const GOOD: &str = "GET / HTTP/1.1\nHost: a\nUpgrade: websocket\nConnection: Upgrade\n\
                            Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n";
        let many = format!("Host: a\n{}", "X: y\n".repeat(70));
        for (change, to, status) in [
            ("GET", "POST", 400),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("HTTP/1.1", "HTTP/2", 400),
            ("Host: a\n", "", 400),
            ("Host: a\n", " folded\n", 400),
            ("Host: a\n", "no colon\n", 400),
            ("Host: a\n", &many, 431),
            ("Host: a\n", "Host: a\nHost: b\n", 400),
            ("Host: a\n", "Host: a\nOrigin: https://a.example\norigin: https://b.example\n", 400),
            ("Version: 13\n", "Version: 13\nSec-WebSocket-Version: 13\n", 400),
            ("Host: a\n", "Host: a\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n", 400),
            ("Host: a\n", "Host: a\nContent-Length: 5\n", 400),
            ("Host: a\n", "Host: a\nTransfer-Encoding: chunked\n", 400),
            ("Upgrade: websocket\n", "", 426),
            ("Upgrade: websocket", "Upgrade: h2c", 426),
            ("Connection: Upgrade", "Connection: close", 400),
            ("Version: 13", "Version: 8", 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "!", 400),
        ] {
            let changed = GOOD.replacen(change, to, 1);
            let answered = request(&changed).and_then(|request| match request.key() {
                Ok(_) => Ok(()),
                Err(response) => Err(response.status),
            });
            assert_eq!(answered, Err(status), "{change} -> {}", to.escape_debug());
        }
    }

    #[test]
    fn an_origin_that_is_not_utf8_does_not_pass_for_none() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example/\xff\r\n\r\n";
        assert_eq!(Request::parse(head).map(|request| request.origin().is_none()), Err(400));
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n";
        assert_eq!(Request::parse(head).map(|request| request.header("X").is_none()), Ok(true));
    }

    #[test]
    fn a_head_whose_lines_end_in_lf_alone_is_refused() {
        for head in [
            // It is over at the first empty line, or at the second.
            &b"GET / HTTP/1.1\r\nHost: a\n\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\n\nX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        ] {
            assert_eq!(Request::parse(head).map(drop), Err(400), "{}", head.escape_ascii());
        }
        assert!(Request::parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    }

    #[test]
    fn a_header_field_of_a_response_cannot_begin_another() {
        let mut wire = BytesMut::new();
        let response =
            Response::new(302).header("Loca tion:", "/a\r\nSet-Cookie: b").body("text/plain", "hi");
        response.write(&mut wire);
        let text = String::from_utf8_lossy(&wire).into_owned();
        assert_eq!(
            text,
            "HTTP/1.1 302 Found\r\nLocation: /aSet-Cookie: b\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\
             Connection: close\r\n\r\nhi"
        );
    }
}

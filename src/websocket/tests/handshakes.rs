use super::{
    super::{Response, WebSocket, WebSocketClient, WebSocketError, WebSocketLayer},
    REQUEST, whole,
};
use crate::{
    error::{CloseReason, LayerError},
    testing::LayerDriver,
    websocket::frame::Opcode,
};

fn server(websocket: &WebSocket) -> LayerDriver<WebSocketLayer> {
    LayerDriver::new(websocket.layer()).expect("nothing has come")
}

/// Gives a server `wire` in pieces. Returns what it has written, and why it has failed.
fn shake(websocket: &WebSocket, wire: &[u8], piece: usize) -> (String, Option<LayerError>) {
    let mut driver = server(websocket);
    let failed = wire.chunks(piece).find_map(|piece| driver.receive(piece).err());
    (String::from_utf8(driver.take_wire()).expect("a head is text"), failed)
}

fn status_of(failed: Option<LayerError>) -> Option<u16> {
    let Some(LayerError::Other(error)) = failed else { return None };
    match error.downcast_ref() {
        Some(WebSocketError::Answered { status } | WebSocketError::Refused { status }) => Some(*status),
        _ => None,
    }
}

#[test]
fn a_request_is_answered_however_it_is_cut() {
    for piece in 1..=REQUEST.len() {
        let (said, failed) = shake(&WebSocket::new(), REQUEST.as_bytes(), piece);
        assert!(failed.is_none());
        assert_eq!(
            said,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }
}

#[test]
fn frames_behind_the_request_are_not_lost() {
    let mut driver = server(&WebSocket::new());
    let wire = [REQUEST.as_bytes(), &whole(Opcode::Binary, "hi")].concat();
    assert_eq!(driver.receive(&wire).ok(), Some(b"\0\0\0\x02hi".to_vec()));
}

#[test]
fn a_check_refuses_with_a_status_and_a_page_is_served() {
    let websocket = WebSocket::new()
        .check(|request| match (request.path(), request.origin()) {
            ("/chat", Some("https://good.example")) => Ok(()),
            ("/chat", _) => Err(Response::new(403)),
            _ => Err(Response::new(404)),
        })
        .http(|request| match request.path() {
            "/" => Response::new(200).body("text/html", "<p>"),
            _ => Response::new(404),
        });
    let from = |origin: &str| REQUEST.replace("Host", &format!("Origin: {origin}\r\nHost"));
    for (request, status) in [
        (from("https://good.example"), 101),
        (from("https://evil.example"), 403),
        (REQUEST.into(), 403),
        (REQUEST.replace("/chat", "/other"), 404),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 200),
        ("GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n".into(), 404),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 405),
    ] {
        let (said, failed) = shake(&websocket, request.as_bytes(), usize::MAX);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert_eq!(status_of(failed), Some(status).filter(|status| *status != 101));
        assert_eq!(said.contains("\r\n\r\n<p>"), status == 200);
    }
    let (said, _) = shake(&WebSocket::new(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", usize::MAX);
    assert!(said.starts_with("HTTP/1.1 426 "), "{said}");
}

#[test]
fn a_head_has_8_kib_at_most_and_a_stream_that_is_no_http_none() {
    let filled = |len: usize| {
        let request = REQUEST.replace("Host", &format!("X: {}\r\nHost", "y".repeat(len - REQUEST.len() - 5)));
        assert_eq!(request.len(), len);
        request
    };
    for piece in [1, 1000, usize::MAX] {
        assert!(shake(&WebSocket::new(), filled(8192).as_bytes(), piece).1.is_none());
        assert_eq!(status_of(shake(&WebSocket::new(), filled(8193).as_bytes(), piece).1), Some(431));
    }
    for wire in [&b"\x16\x03\x01\x02\0"[..], b"\0\0\0\x05hello"] {
        let (said, failed) = shake(&WebSocket::new(), wire, usize::MAX);
        assert!(matches!(failed, Some(LayerError::Malformed { .. })), "{failed:?}");
        assert_eq!(said, "");
    }
}

#[test]
fn a_server_that_closes_in_the_handshake_says_so_in_http() {
    for (reason, status) in
        [(CloseReason::Handshake(std::time::Duration::from_secs(1)), "408"), (CloseReason::Shutdown, "503")]
    {
        let mut driver = server(&WebSocket::new());
        assert!(driver.receive(b"GET / HT").is_ok());
        assert!(driver.close(&reason).is_ok());
        let said = String::from_utf8(driver.take_wire()).expect("text");
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
    }
}

#[test]
fn the_first_of_our_subprotocols_that_the_client_offers_is_chosen() {
    let websocket = WebSocket::new().protocols(["v3", "v2", "v1"]);
    for (offered, chosen) in [("v1, v2", Some("v2")), ("v1", Some("v1")), ("V1, v9", None)] {
        let request = REQUEST.replace("Host", &format!("Sec-WebSocket-Protocol: {offered}\r\nHost"));
        let (said, _) = shake(&websocket, request.as_bytes(), usize::MAX);
        let line = said.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(line, chosen);
    }
}

#[test]
fn a_client_checks_the_response() {
    let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
                Sec-WebSocket-Accept: KEY\r\n\r\n";
    for (change, to, wrong) in [
        ("", "", None),
        ("101 Switching Protocols", "403 Forbidden", Some("refused the WebSocket with status 403")),
        ("KEY", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", Some("its key is not that of the request")),
        ("Sec-WebSocket-Accept: KEY\r\n", "", Some("its key is not that of the request")),
        ("Upgrade: WebSocket\r\n", "", Some("it does not say Upgrade: websocket")),
        ("keep-alive, upgrade", "close", Some("it does not say Upgrade: websocket")),
        ("KEY", "KEY\r\nSec-WebSocket-Extensions: x", Some("an extension that was not offered")),
        ("KEY", "KEY\r\nSec-WebSocket-Protocol: v2", Some("a subprotocol that was not offered")),
        ("KEY", "KEY\r\nSec-WebSocket-Protocol: v1", None),
        (
            "KEY",
            "KEY\r\nSec-WebSocket-Extensions: x\r\nsec-websocket-extensions: y",
            Some("a header field of it comes twice"),
        ),
        (
            "KEY",
            "KEY\r\nSec-WebSocket-Protocol: v2\r\nSec-WebSocket-Protocol: v2",
            Some("a header field of it comes twice"),
        ),
        ("KEY", "KEY\n\nX: y", Some("its lines end in LF alone")),
        ("HTTP/1.1 101", "HTTP/1.1 1O1", Some("it is no HTTP response")),
        ("HTTP/1.1", "SSH-2.0", Some("no HTTP response, which opens a WebSocket")),
    ] {
        let client =
            WebSocketClient::new("a.example:80", "/chat").and_then(|client| client.protocols(["v1"]));
        let mut driver = LayerDriver::new(client.expect("it is fine").layer()).expect("it speaks first");
        let asked = String::from_utf8(driver.take_wire()).expect("a head is text");
        assert!(asked.starts_with("GET /chat HTTP/1.1\r\nHost: a.example:80\r\n"), "{asked}");
        assert!(asked.contains("\r\nSec-WebSocket-Protocol: v1\r\n") && asked.ends_with("\r\n\r\n"));
        let key = asked.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = super::super::http::accept_of(key.as_bytes());
        let response = good.replacen(change, to, 1).replace("KEY", &accept);
        let failed = response.as_bytes().chunks(7).find_map(|piece| driver.receive(piece).err());
        match wrong {
            Some(wrong) => assert!(failed.is_some_and(|error| error.to_string().contains(wrong)), "{wrong}"),
            None => assert!(failed.is_none() && driver.is_open(), "{failed:?}"),
        }
    }
}

#[test]
fn what_cannot_stand_in_a_request_is_refused() {
    for (host, target) in
        [("", "/"), ("a b", "/"), ("a\r\nX: y", "/"), ("a", ""), ("a", "chat"), ("a", "/a b"), ("a", "/é")]
    {
        assert!(WebSocketClient::new(host, target).is_err(), "{host:?} {target:?}");
    }
    let client = WebSocketClient::new("a", "/").expect("it is fine");
    assert!(client.clone().header("X-A", "b c").is_ok());
    for (name, value) in [("", "b"), ("X A", "b"), ("X:", "b"), ("X", "b\r\nY: c"), ("X", "\0")] {
        assert!(client.clone().header(name, value).is_err(), "{name:?} {value:?}");
    }
    for protocol in ["", "a b", "a,b", "é"] {
        assert!(client.clone().protocols([protocol]).is_err(), "{protocol:?}");
    }
}

//! Compressed messages: RFC 7692, as sections 12 and 13 of the Autobahn test suite have them, and what it leaves out.

use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    super::{
        WebSocket, WebSocketClient,
        frame::{FIN, Head, Opcode, RSV1, Role},
    },
    Echo, REQUEST, frame,
    pairs::{cut, decoded, encoded, pair},
};
use crate::{
    deflate::{Deflater, Flush},
    error::LayerError,
    framing::MessageKind,
    layer::{Deflate, Layer},
    testing::LayerDriver,
};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const LIMIT: usize = 1 << 20;

fn server() -> WebSocket {
    WebSocket::new().deflate(Deflate::new())
}

fn client() -> WebSocketClient {
    WebSocketClient::new("a", "/").expect("it is fine").deflate(Deflate::new())
}

/// The payload of a message, compressed.
fn compressed(plain: &[u8]) -> Vec<u8> {
    let (mut deflater, mut out) = (Deflater::new(6), BytesMut::new());
    deflater.write(plain, &mut out).expect("the stream goes on");
    deflater.flush(Flush::Sync, &mut out).expect("the stream goes on");
    out[..out.len() - 4].to_vec()
}

/// A server that has agreed to compress.
fn open(websocket: &WebSocket, limit: usize) -> Echo {
    let request = REQUEST
        .replace("Host", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nHost");
    Echo::asked(websocket, &request, limit)
}

/// The code of the close frame that is the last of what a server has sent.
fn code(echo: &mut Echo) -> u16 {
    let wire = echo.driver.take_wire();
    let at = wire.windows(2).rposition(|two| two[0] == FIN | Opcode::Close.bits()).expect("a close frame");
    u16::from_be_bytes([wire[at + 2], wire[at + 3]])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_one_side_sends_the_other_gets_whatever_the_cuts(
        texts in proptest::collection::vec("[a-c€]{0,200}", 0..4),
        blobs in proptest::collection::vec(proptest::collection::vec(0..4_u8, 0..3000), 0..4),
        sent in proptest::collection::vec(1_usize..400, 1..8),
        read in proptest::collection::vec(1_usize..100, 1..8),
        swapped in any::<bool>(),
    ) {
        let texts = texts.into_iter().map(|text| (MessageKind::Text, text.into_bytes()));
        let messages: Vec<_> = texts.chain(blobs.into_iter().map(|blob| (MessageKind::Binary, blob))).collect();
        let plain = encoded(&messages).expect("they can be sent");
        for carried in [false, true] {
            let (asks, takes) =
                if carried { (client().bytes(), server().bytes()) } else { (client(), server()) };
            let (client, server) = pair(&asks, &takes).expect("both are fine");
            let (mut from, mut to) = if swapped { (server, client) } else { (client, server) };
            for piece in cut(&plain, &sent) {
                from.send(&piece).expect("it is open");
            }
            let mut got = Vec::new();
            for piece in cut(&from.take_wire(), &read) {
                got.extend(to.receive(&piece).expect("what comes is right"));
            }
            prop_assert_eq!(decoded(&got), messages.clone());
        }
    }

    #[test]
    fn garbage_that_is_said_to_be_compressed_does_no_more_than_close(
        garbage in proptest::collection::vec(any::<u8>(), 0..500),
        cuts in proptest::collection::vec(1_usize..50, 1..5),
    ) {
        let mut echo = open(&server(), 10_000);
        let wire = frame(FIN | RSV1 | BINARY, &garbage);
        let fine = cut(&wire, &cuts).iter().all(|piece| echo.receive(piece));
        if !fine {
            prop_assert!([1002, 1007, 1008, 1009].contains(&code(&mut echo)));
        }
    }
}

#[test]
fn long_messages_are_compressed_and_short_ones_are_not() -> Result<(), LayerError> {
    let (mut client, mut server) = pair(&client(), &server())?;
    for (payload, is_compressed) in [(vec![7; 63], false), (vec![7; 64], true), (vec![7; 300_000], true)] {
        let plain = encoded(&[(MessageKind::Binary, payload.clone())]).expect("it can be sent");
        for (from, role) in [(&mut client, Role::Server), (&mut server, Role::Client)] {
            from.send(&plain)?;
            let wire = from.take_wire();
            let head = Head::parse(&wire, role, RSV1).expect("right").expect("whole");
            assert_eq!((head.is_compressed, head.is_last), (is_compressed, true));
            assert!(wire.len() < 100 + payload.len() / 100, "{} bytes of {}", wire.len(), payload.len());
        }
    }
    Ok(())
}

#[test]
fn without_an_offer_that_can_be_kept_messages_go_as_they_are() {
    for offer in ["", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n"] {
        let mut echo = Echo::asked(&server(), &REQUEST.replace("Host", &format!("{offer}Host")), LIMIT);
        assert!(echo.receive(&frame(FIN | BINARY, &[7; 1000])));
        assert_eq!(echo.answers()[0].1, [7; 1000]);
        assert!(!echo.receive(&frame(FIN | RSV1 | BINARY, &compressed(&[7; 1000]))));
        assert_eq!(code(&mut echo), 1002);
    }
    // The second of two offers.
    let two =
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9, permessage-deflate\r\nHost";
    let mut echo = Echo::asked(&server(), &REQUEST.replace("Host", two), LIMIT);
    assert!(echo.receive(&frame(FIN | RSV1 | BINARY, &compressed(&[7; 1000]))));
}

#[test]
fn fragments_of_a_compressed_message_are_joined_and_control_frames_may_be_between_them() {
    let text = "Hello-µ@ßöäüàá-UTF-8!! ".repeat(200);
    let payload = compressed(text.as_bytes());
    for piece in [1, 7, payload.len()] {
        let mut wire = Vec::new();
        for (number, part) in payload.chunks(piece).enumerate() {
            wire.extend(frame(if number == 0 { RSV1 | TEXT } else { 0 }, part));
            wire.extend(frame(FIN | Opcode::Ping.bits(), b"x"));
        }
        wire.extend(frame(FIN, b""));
        for cut in [1, 5, 1000, wire.len()] {
            let (mut echo, mut plain) = (open(&server(), LIMIT), Vec::new());
            for piece in wire.chunks(cut) {
                plain.extend(echo.driver.receive(piece).expect("it is right"));
            }
            assert_eq!(decoded(&plain), [(MessageKind::Text, text.clone().into_bytes())]);
        }
    }
}

#[test]
fn a_fragment_that_says_anew_that_it_is_compressed_and_a_compressed_ping_are_breaches() {
    let payload = compressed(&[7; 1000]);
    for wire in [
        [frame(RSV1 | BINARY, &payload[..3]), frame(FIN | RSV1, &payload[3..])].concat(),
        frame(FIN | RSV1 | Opcode::Ping.bits(), b""),
        frame(FIN | 0x20 | BINARY, b""),
    ] {
        let mut echo = open(&server(), LIMIT);
        assert!(!echo.receive(&wire));
        assert_eq!(code(&mut echo), 1002);
    }
}

#[test]
fn a_message_counts_by_what_it_inflates_to() {
    for (len, is_fine) in [(LIMIT, true), (LIMIT + 1, false), (16 * LIMIT, false)] {
        let wire = frame(FIN | RSV1 | BINARY, &compressed(&vec![0; len]));
        for piece in [100, wire.len()] {
            let (mut echo, mut plain) = (open(&server(), LIMIT), 0);
            for piece in wire.chunks(piece) {
                plain += echo.driver.receive(piece).expect("a breach is no reason to be silent").len();
            }
            assert_eq!(echo.driver.receive_end().is_err(), !is_fine || !echo.driver.has_ended());
            assert!(plain <= LIMIT + LIMIT / 100, "{plain} bytes came out");
            assert_eq!(echo.driver.has_ended(), !is_fine);
        }
    }
}

#[test]
fn a_peer_that_inflates_without_end_is_closed() {
    let websocket = WebSocket::new().deflate(Deflate::new().max_ratio(10).allowance(100_000));
    let (mut echo, wire) = (open(&websocket, LIMIT), frame(FIN | RSV1 | BINARY, &compressed(&[0; 60_000])));
    assert!(echo.receive(&wire), "within what is allowed at once");
    assert!(!echo.receive(&wire), "no more is earned by so few bytes");
    assert_eq!(code(&mut echo), 1008);
}

#[test]
fn text_that_is_not_utf_8_is_found_behind_the_compression_and_not_handed_out() {
    let long = [&[b'a'; 70_000][..], b"\xff"].concat();
    let cut_off = [&[b'a'; 100][..], b"\xe2\x82"].concat();
    for text in [long, cut_off] {
        let mut echo = open(&server(), LIMIT);
        let plain = echo.driver.receive(&frame(FIN | RSV1 | TEXT, &compressed(&text))).expect("it is told");
        assert_eq!(decoded(&plain), []);
        let failure = echo.driver.receive_end().expect_err("it is no text");
        assert!(failure.to_string().contains("1007"), "{failure}");
    }
}

#[test]
fn a_message_with_a_last_block_is_a_message_too() {
    let (mut deflater, mut out) = (Deflater::new(6), BytesMut::new());
    deflater.write(&[7; 1000], &mut out).expect("the stream goes on");
    deflater.flush(Flush::Finish, &mut out).expect("it ends");
    // RFC 7692, section 7.2.3.4: an octet of zeros behind it, to which the tail is added.
    out.extend_from_slice(&[0]);
    let mut echo = open(&server(), LIMIT);
    for _ in 0..2 {
        let plain = echo.driver.receive(&frame(FIN | RSV1 | BINARY, &out)).expect("it is right");
        assert_eq!(decoded(&plain), [(MessageKind::Binary, vec![7; 1000])]);
    }
}

#[test]
fn no_memory_is_held_between_messages() -> Result<(), LayerError> {
    let (mut from, mut to) = pair(&client(), &server())?;
    let plain = encoded(&[(MessageKind::Binary, vec![7; 1000])]).expect("it can be sent");
    from.send(&plain[..500])?;
    assert!(from.layer().buffered() > 300_000, "while it compresses");
    from.send(&plain[500..])?;
    let wire = from.take_wire();
    to.receive(&wire[..wire.len() - 1])?;
    assert!(to.layer().buffered() > 40_000, "while it inflates");
    to.receive(&wire[wire.len() - 1..])?;
    assert_eq!((from.layer().buffered(), to.layer().buffered()), (0, 0));
    Ok(())
}

#[test]
fn a_client_checks_what_the_server_makes_of_its_offer() {
    for (chosen, is_fine) in [
        ("permessage-deflate; server_no_context_takeover", true),
        ("permessage-deflate", false),
        ("permessage-bzip2", false),
    ] {
        let mut driver = LayerDriver::new(client().layer()).expect("it speaks first");
        let asked = String::from_utf8(driver.take_wire()).expect("text");
        assert!(
            asked.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover")
        );
        let key = asked.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = super::super::http::accept_of(key.as_bytes());
        let response = format!(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
             Sec-WebSocket-Extensions: {chosen}\r\n\r\n"
        );
        assert_eq!(driver.receive(response.as_bytes()).is_ok(), is_fine, "{chosen}");
    }
}

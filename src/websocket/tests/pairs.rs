//! A client and a server, each the layer of this crate, at any cut of what is between them.

use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    super::{WebSocket, WebSocketClient, WebSocketLayer, frame::Opcode},
    Echo, frames, whole,
};
use crate::{
    error::{CloseReason, LayerError},
    framing::{Deframed, Deframer, EncodeError, Framing, MessageKind, Messages},
    testing::LayerDriver,
    websocket::CloseFrame,
};

pub(super) type Driver = LayerDriver<WebSocketLayer>;

fn client() -> WebSocketClient {
    WebSocketClient::new("a", "/").expect("it is fine")
}

/// Both sides, with the handshake behind them.
pub(super) fn pair(client: &WebSocketClient, server: &WebSocket) -> Result<(Driver, Driver), LayerError> {
    let (mut client, mut server) = (LayerDriver::new(client.layer())?, LayerDriver::new(server.layer())?);
    server.receive(&client.take_wire())?;
    client.receive(&server.take_wire())?;
    assert!(client.is_open() && server.is_open());
    Ok((client, server))
}

pub(super) fn encoded(messages: &[(MessageKind, Vec<u8>)]) -> Result<BytesMut, EncodeError> {
    let mut plain = BytesMut::new();
    for (kind, payload) in messages {
        Messages::new().send_as(*kind).encode(payload, &mut plain)?;
    }
    Ok(plain)
}

pub(super) fn decoded(plain: &[u8]) -> Vec<(MessageKind, Vec<u8>)> {
    let (mut deframer, mut found) = (Deframer::new(Messages::new()), Vec::new());
    deframer.feed(plain);
    while let Ok(Some(Deframed::Packet(packet))) = deframer.poll_frame() {
        let packet = packet.to_vec();
        found.push((deframer.framing().received(), packet));
    }
    found
}

pub(super) fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for len in cuts.iter().cycle().take(10_000) {
        let (piece, behind) = rest.split_at((*len).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces.push(rest.to_vec());
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_one_side_sends_the_other_gets_whatever_the_cuts(
        texts in proptest::collection::vec("\\PC{0,50}", 0..4),
        blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..4),
        sent in proptest::collection::vec(1_usize..40, 1..8),
        read in proptest::collection::vec(1_usize..40, 1..8),
        swapped in any::<bool>(),
    ) {
        let texts = texts.into_iter().map(|text| (MessageKind::Text, text.into_bytes()));
        let messages: Vec<_> = texts.chain(blobs.into_iter().map(|blob| (MessageKind::Binary, blob))).collect();
        let plain = encoded(&messages).expect("they can be sent");
        let (client, server) = pair(&client(), &WebSocket::new()).expect("both are fine");
        let (mut from, mut to) = if swapped { (server, client) } else { (client, server) };
        for piece in cut(&plain, &sent) {
            from.send(&piece).expect("it is open");
        }
        let mut got = Vec::new();
        for piece in cut(&from.take_wire(), &read) {
            got.extend(to.receive(&piece).expect("what comes is right"));
        }
        prop_assert_eq!(decoded(&got), messages);
    }

    #[test]
    fn no_bytes_make_a_server_do_more_than_close(
        wire in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec(1_usize..20, 1..5),
    ) {
        let (mut whole, mut pieces) = (Echo::open(1000), Echo::open(1000));
        let fine = whole.receive(&wire);
        let fine_in_pieces = cut(&wire, &cuts).iter().all(|piece| pieces.receive(piece));
        prop_assert_eq!(fine, fine_in_pieces);
        prop_assert_eq!(whole.answers().pop(), pieces.answers().pop());
    }
}

#[test]
fn a_close_frame_is_answered_with_its_code_and_ends_both_sides() -> Result<(), LayerError> {
    let own = CloseReason::failed(CloseFrame::new(4000, "enough").into());
    for (reason, said) in [
        (own, CloseFrame::new(4000, "enough")),
        (CloseReason::Local, CloseFrame::new(1000, "")),
        (CloseReason::Shutdown, CloseFrame::new(1001, "")),
        (CloseReason::asked(Some(std::sync::Arc::new(std::fmt::Error))), CloseFrame::new(1008, "")),
    ] {
        for swapped in [false, true] {
            let (client, server) = pair(&client(), &WebSocket::new())?;
            let (mut first, mut second) = if swapped { (server, client) } else { (client, server) };
            first.close(&reason)?;
            first.close(&reason)?;
            let wire = first.take_wire();
            assert!(second.receive(&wire)?.is_empty() && second.has_ended());
            second.receive_end()?;
            second.close(&CloseReason::PeerClosed)?;
            let answer = second.take_wire();
            if swapped {
                let sent = frames(&wire);
                assert_eq!(sent, [(Opcode::Close, said.payload())]);
            } else {
                assert_eq!(frames(&answer), [(Opcode::Close, said.payload())]);
            }
            assert!(first.receive(&answer)?.is_empty() && first.has_ended());
            first.receive_end()?;
        }
    }
    Ok(())
}

#[test]
fn a_stream_that_ends_without_a_close_frame_is_truncated() -> Result<(), LayerError> {
    let (mut client, mut server) = pair(&client(), &WebSocket::new())?;
    for side in [&mut client, &mut server] {
        assert!(matches!(side.receive_end(), Err(LayerError::Truncated { .. })));
    }
    Ok(())
}

#[test]
fn a_pong_waits_for_the_end_of_the_frame_that_is_being_sent() -> Result<(), LayerError> {
    let (mut echo, message) = (Echo::open(1 << 20), (MessageKind::Binary, vec![7; 1000]));
    let plain = encoded(&[message.clone(), message]).expect("they can be sent");
    echo.driver.send(&plain[..500])?;
    let mut wire = echo.driver.take_wire();
    for ping in ["first", "second"] {
        assert!(echo.receive(&whole(Opcode::Ping, ping)));
    }
    assert_eq!(echo.driver.take_wire(), b"", "not within a frame");
    echo.driver.send(&plain[500..])?;
    wire.extend(echo.driver.take_wire());
    let kinds: Vec<_> = frames(&wire).into_iter().map(|(opcode, payload)| (opcode, payload.len())).collect();
    assert_eq!(kinds, [(Opcode::Binary, 1000), (Opcode::Pong, 6), (Opcode::Binary, 1000)]);
    Ok(())
}

#[test]
fn a_breach_within_a_frame_that_is_being_sent_is_told_behind_it() -> Result<(), LayerError> {
    let mut echo = Echo::open(1 << 20);
    let plain = encoded(&[(MessageKind::Binary, vec![7; 1000])]).expect("it can be sent");
    echo.driver.send(&plain[..500])?;
    let mut wire = echo.driver.take_wire();
    assert!(echo.driver.receive(&[0x83, 0x80])?.is_empty());
    assert_eq!(echo.driver.take_wire(), b"", "not within a frame");
    echo.driver.send(&plain[500..])?;
    let failure = echo.driver.receive_end().expect_err("the peer has broken the protocol");
    echo.driver.close(&failure.into())?;
    wire.extend(echo.driver.take_wire());
    let opcodes: Vec<_> = frames(&wire).into_iter().map(|(opcode, _)| opcode).collect();
    assert_eq!(opcodes, [Opcode::Binary, Opcode::Close]);
    Ok(())
}

#[test]
fn a_stream_of_bytes_goes_through_at_any_cut_and_a_text_is_refused() -> Result<(), LayerError> {
    let (mut client, mut server) = pair(&client().bytes(), &WebSocket::new().bytes())?;
    let stream: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    stream.chunks(999).try_for_each(|piece| client.send(piece))?;
    let mut got = Vec::new();
    for piece in client.take_wire().chunks(1001) {
        got.extend(server.receive(piece)?);
    }
    assert_eq!(got, stream);
    server.send(&stream)?;
    assert_eq!(client.receive(&server.take_wire())?, stream);
    server.receive(&whole(Opcode::Text, "hi"))?;
    let refused = server.receive_end().expect_err("a text is no stream");
    assert!(refused.to_string().contains("1003"), "{refused}");
    server.close(&refused.into())?;
    assert_eq!(frames(&server.take_wire())[0].1[..2], 1003_u16.to_be_bytes());
    Ok(())
}

#[test]
fn a_client_masks_each_frame_with_a_key_of_its_own() -> Result<(), LayerError> {
    let (mut client, _) = pair(&client(), &WebSocket::new())?;
    let plain = encoded(&vec![(MessageKind::Binary, vec![0; 8]); 100]).expect("they can be sent");
    client.send(&plain)?;
    let wire = client.take_wire();
    let mut keys: Vec<_> = wire.chunks(14).map(|frame| frame[2..6].to_vec()).collect();
    assert!(wire.chunks(14).all(|frame| frame[6..10] == frame[2..6] && frame[10..] == frame[2..6]));
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() > 90, "{} keys for 100 frames", keys.len());
    Ok(())
}

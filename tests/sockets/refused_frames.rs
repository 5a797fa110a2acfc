//! Bytes that are no packet, or too long a one: what becomes of their session, and who is told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::BytesMut;
use framewire::{
    CloseKind, Decoded, EncodeError, FrameError, Framing, LengthPrefix, Limits, Oversize, Session,
};

use crate::common::{On, Served, echo, frame, on_each_strategy, on_each_strategy_and_transport, until};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    a_hostile_length_of_32_bits_is_refused
    a_hostile_length_of_64_bits_is_refused
    a_frame_over_the_maximum_can_be_skipped_and_the_stream_goes_on
    the_end_of_the_stream_inside_a_frame_is_reported_as_such
    a_framing_that_refuses_the_same_bytes_for_ever_ends_its_session
}

on_each_strategy! {
    a_refusal_that_never_moves_on_ends_the_session
    an_answer_to_a_broken_frame_is_delivered_before_the_end
}

fn a_refusal_that_never_moves_on_ends_the_session(on: On) {
    let served = Served::start(on.bind().framing(Obstinate(LengthPrefix::u32_be())), echo());
    let (mut client, session) = served.connect_known();
    client.write(b"nonsense");
    client.assert_end();
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Frame);
    assert!(text.contains("the same refusal twice"), "{text}");
    served.finish();
}

/// Echoes, and tells of what is broken; "bad" is what it calls so itself.
fn polite() -> Scripted<()> {
    let answer = |session: &mut Session<'_>, (): &mut (), packet: &[u8]| {
        session.send(packet)?;
        match packet {
            b"bad" => Err(FrameError::malformed("said so itself", packet).into()),
            _ => Ok(()),
        }
    };
    Scripted::answering(answer).on_violation(|session, (), error| {
        let _ = session.send(format!("-ERR {error}"));
    })
}

fn an_answer_to_a_broken_frame_is_delivered_before_the_end(on: On) {
    let served = on.serve(Limits::default().frame(1000), polite());
    let mut client = served.connect();
    client.assert_echo("fine");
    client.write(&[0, 1, 0, 0]);
    let answer = client.recv_text();
    assert!(answer.starts_with("-ERR frame of 65536 bytes is over the maximum of 1000"), "{answer}");
    client.assert_end();
    // What a handler calls broken is no news to it.
    let mut other = served.connect();
    other.assert_echo("bad");
    other.assert_end();
    drop((client, other));
    served.finish();
}

fn a_hostile_length_of_32_bits_is_refused(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    for length in [(1 << 20) + 1, 1 << 31, u32::MAX] {
        refuse(&served, &length.to_be_bytes());
        bystander.assert_echo("still served");
    }
    drop(bystander);
    served.finish();
}

fn a_hostile_length_of_64_bits_is_refused(on: On) {
    let echo = echo();
    let served = Served::start(on.bind().framing(LengthPrefix::u64_be()), echo);
    let mut bystander = served.connect();
    for length in [1 << 31, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        refuse(&served, &length.to_be_bytes());
        let packet = [&5u64.to_be_bytes()[..], b"still"].concat();
        bystander.write(&packet);
        assert_eq!(bystander.read(packet.len()), packet);
    }
    drop(bystander);
    served.finish();
}

/// Such a header gets the end of the stream, and its session ends for that reason, having held next to nothing.
fn refuse(served: &Served, header: &[u8]) {
    let (mut client, session) = served.connect_known();
    client.write(header);
    client.assert_end();
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Frame, "{text}");
    assert!(text.contains("is over the maximum of 1048576"), "{text}");
    assert!(served.metrics().buffered < 4096, "a promise of bytes took {} bytes", served.metrics().buffered);
}

fn a_frame_over_the_maximum_can_be_skipped_and_the_stream_goes_on(on: On) {
    let rejected = Arc::<AtomicUsize>::default();
    let counted = rejected.clone();
    let handler = Scripted::<()>::echo().on_rejected(move |session, (), error| {
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(session.send("rejected")?)
    });
    let framing = LengthPrefix::u32_be().max(1000).oversize(Oversize::Discard);
    let served = Served::start(on.bind().framing(framing), handler);
    let mut bystander = served.connect();
    let mut client = served.connect();
    for oversize in [1001, 5000, 3_000_000] {
        client.send("before");
        client.send(vec![b'x'; oversize]);
        client.send("behind");
        assert_eq!(client.recv_text(), "before");
        assert_eq!(client.recv_text(), "rejected");
        assert_eq!(client.recv_text(), "behind");
        let buffered = served.metrics().buffered;
        assert!(buffered < 256 * 1024, "{buffered} bytes are held of a frame that is skipped");
    }
    client.assert_echo([b'y'; 1000]);
    assert_eq!(rejected.load(Ordering::Relaxed), 3);
    until("all are counted", || served.metrics().frames_rejected == 3);
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

fn the_end_of_the_stream_inside_a_frame_is_reported_as_such(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("whole");
    client.write(&frame(b"not whole")[..7]);
    client.end();
    assert_eq!(client.read_to_end(), frame(b"whole"), "what came before is answered");
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Frame);
    assert!(text.starts_with("stream ended inside a frame, 7 bytes into it"), "{text}");
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

/// Refuses for ever what it does not take off.
#[derive(Clone)]
struct Obstinate(LengthPrefix);

impl Framing for Obstinate {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        if buf.ends_with(b"nonsense") {
            let error = FrameError::malformed("nonsense", buf);
            return Ok(Some(Decoded::Rejected { consumed: 0, error }));
        }
        self.0.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.0.encode(payload, out)
    }
}

fn a_framing_that_refuses_the_same_bytes_for_ever_ends_its_session(on: On) {
    let echo = echo();
    let served = Served::start(on.bind().framing(Obstinate(LengthPrefix::u32_be())), echo);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.assert_echo("sense");
    client.send("nonsense");
    client.assert_end();
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Frame);
    assert!(text.contains("the framing answered with the same refusal twice"), "{text}");
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

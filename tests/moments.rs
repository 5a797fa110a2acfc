//! Pauses, framings and handles at odd moments: what waits is bounded, comes out in time, and is answered.

mod common;

use std::{sync::mpsc, thread, time::Duration};

use bytes::BytesMut;
use common::{On, PATIENCE, Served, frame, on_each_strategy, until};
use framewire::{
    CloseKind, Decoded, EncodeError, Failure, FrameError, Framing, Handled, LengthPrefix, Limits,
    PacketHandler, Separator, Session, SessionHandle, TimerId, packet_fn,
};

on_each_strategy! {
    a_session_that_pauses_at_each_packet_does_not_pile_up_what_its_peer_sends
    a_framing_set_by_a_timer_gets_what_waits_already
    a_handle_knows_that_an_outbox_has_emptied
    a_refusal_that_never_moves_on_ends_the_session
    an_answer_to_a_broken_frame_is_delivered_before_the_end
}

/// Takes one packet at a time, and the next one a little later.
#[derive(Clone)]
struct Sluggish;

impl PacketHandler for Sluggish {
    type State = u32;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<u32> {
        Ok(0)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, next: &mut u32, packet: &[u8]) -> Handled {
        assert_eq!(packet, next.to_be_bytes());
        *next += 1;
        session.pause();
        Ok(session.set_timer(TimerId(0), Duration::ZERO)?)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, next: &mut u32, _: TimerId) -> Handled {
        session.resume();
        // A busy shard: meanwhile more of the flood comes.
        thread::sleep(Duration::from_micros(300));
        if *next == PACKETS { Ok(session.send("all")?) } else { Ok(()) }
    }
}

const PACKETS: u32 = 400_000;

fn a_session_that_pauses_at_each_packet_does_not_pile_up_what_its_peer_sends(on: On) {
    // All of them would take long: the bound shows within the first hundreds.
    let served = on.serve(Limits::default().frame(100), Sluggish);
    let (mut flood, session) = served.connect_known();
    let stream: Vec<u8> = (0..PACKETS).flat_map(|number| frame(&number.to_be_bytes())).collect();
    let writing = thread::spawn(move || {
        flood.try_write(&stream);
        flood
    });
    let mut most = 0;
    until("some hundred packets were taken", || {
        most = most.max(served.metrics().buffered);
        served.metrics().packets_in >= 600
    });
    assert!(most <= 96 * 1024, "{most} bytes were buffered: more than one read of frames that wait");
    session.abort().expect("it is open");
    drop(writing.join().expect("the writer ends"));
    served.finish();
}

#[derive(Clone)]
struct Switch;

impl PacketHandler for Switch {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        Ok(session.set_timer(TimerId(0), Duration::from_millis(50))?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _: &mut (), packet: &[u8]) -> Handled {
        Ok(session.send(packet)?)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _: &mut (), _: TimerId) -> Handled {
        if session.stats().bytes_in < 4 {
            return Ok(session.set_timer(TimerId(0), Duration::from_millis(5))?);
        }
        session.set_framing(LengthPrefix::u8());
        Ok(())
    }
}

fn a_framing_set_by_a_timer_gets_what_waits_already(on: On) {
    let served = Served::start(on.bind().framing(Separator::lines()), Switch);
    let mut client = served.connect();
    client.write(b"\x03abc");
    assert_eq!(client.read(4), b"\x03abc", "no further byte has come");
    drop(client);
    served.finish();
}

fn a_handle_knows_that_an_outbox_has_emptied(on: On) {
    #[derive(Clone)]
    struct Introduce(mpsc::Sender<SessionHandle>);
    impl PacketHandler for Introduce {
        type State = ();
        fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
            Ok(())
        }
        fn on_packet(&mut self, session: &mut Session<'_>, _: &mut (), _: &[u8]) -> Handled {
            session.send([7; 50_000])?;
            self.0.send(session.handle()).map_err(Failure::from)
        }
    }
    let (sender, handles) = mpsc::channel();
    let limits = Limits::default().outbox_low(1_000).outbox_high(60_000).outbox_hard(64_000);
    let served = on.serve(limits, Introduce(sender));
    let mut client = served.connect();
    client.send("who are you");
    let handle = handles.recv_timeout(PATIENCE).expect("it introduces itself");
    assert_eq!(client.recv().len(), 50_000);
    until("the handle has room", || handle.send([1; 20_000]) == Ok(()));
    assert_eq!(client.recv().len(), 20_000);
    drop((client, handle));
    served.finish();
}

/// Refuses what comes, for ever, without taking it.
#[derive(Clone)]
struct Stubborn;

impl Framing for Stubborn {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Ok(Some(Decoded::Rejected { consumed: 0, error: FrameError::malformed("no", buf) }))
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        out.extend_from_slice(payload);
        Ok(())
    }
}

fn a_refusal_that_never_moves_on_ends_the_session(on: On) {
    let served =
        Served::start(on.bind().framing(Stubborn), packet_fn(|session, packet| Ok(session.send(packet)?)));
    let (mut client, session) = served.connect_known();
    client.write(b"x");
    client.assert_end();
    drop(client);
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::Frame);
    assert!(text.contains("the same refusal twice"), "{text}");
    served.finish();
}

#[derive(Clone)]
struct Polite;

impl PacketHandler for Polite {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _: &mut (), packet: &[u8]) -> Handled {
        session.send(packet)?;
        match packet {
            b"bad" => Err(FrameError::malformed("said so itself", packet).into()),
            _ => Ok(()),
        }
    }

    fn on_violation(&mut self, session: &mut Session<'_>, _: &mut (), error: &FrameError) {
        let _ = session.send(format!("-ERR {error}"));
    }
}

fn an_answer_to_a_broken_frame_is_delivered_before_the_end(on: On) {
    let served = on.serve(Limits::default().frame(1000), Polite);
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

//! What peers do to the byte stream, and what of it the handler gets to see.

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use common::{Client, On, PATIENCE, Served, frame, on_each_strategy_and_transport, until};
use framewire::{
    CloseKind, Decoded, EncodeError, FrameError, Framing, Handled, LengthPrefix, Limits, Oversize,
    PacketHandler, Raw, SendError, Separator, Session, UntilEof, packet_fn,
};

on_each_strategy_and_transport! {
    bytes_that_come_one_at_a_time_make_the_same_packets
    frames_cut_in_two_at_any_place_make_the_same_packets
    a_hundred_thousand_frames_in_one_write_are_all_answered_in_order
    packets_without_bytes_are_packets
    a_hostile_length_of_32_bits_is_refused
    a_hostile_length_of_64_bits_is_refused
    a_frame_over_the_maximum_can_be_skipped_and_the_stream_goes_on
    bytes_behind_a_change_of_framing_go_to_the_new_one
    a_packet_that_cannot_be_framed_is_refused_and_the_session_goes_on
    a_packet_of_no_bytes_on_the_wire_harms_nobody
    the_end_of_the_stream_can_make_the_last_packet
    the_whole_stream_can_be_one_packet
    the_end_of_the_stream_inside_a_frame_is_reported_as_such
    a_framing_that_refuses_the_same_bytes_for_ever_ends_its_session
}

fn bytes_that_come_one_at_a_time_make_the_same_packets(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let mut client = served.connect();
    for packet in ["a", "", "hello, world"] {
        for byte in frame(packet.as_bytes()) {
            client.write(&[byte]);
        }
        assert_eq!(client.recv_text(), packet);
    }
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

fn frames_cut_in_two_at_any_place_make_the_same_packets(on: On) {
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let mut client = served.connect();
    let packets: [&[u8]; 4] = [b"first", b"", b"x", b"the last of four"];
    let wire = packets.map(frame).concat();
    for cut in 0..=wire.len() {
        let before = served.metrics().bytes_in;
        client.write(&wire[..cut]);
        // So that the server sees the two halves as two reads.
        until("the first half was read", || served.metrics().bytes_in == before + cut as u64);
        client.write(&wire[cut..]);
        for packet in packets {
            assert_eq!(client.recv(), packet, "cut at {cut}");
        }
        until("the second half was read", || served.metrics().bytes_in == before + wire.len() as u64);
    }
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

fn a_hundred_thousand_frames_in_one_write_are_all_answered_in_order(on: On) {
    const FRAMES: u32 = 100_000;
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let mut client = served.connect();
    let mut writer = Client { socket: client.socket.try_clone().expect("a socket has many owners") };
    let writing = std::thread::spawn(move || {
        let wire: Vec<u8> = (0..FRAMES).flat_map(|number| frame(&number.to_be_bytes())).collect();
        writer.write(&wire);
        writer.end();
    });
    bystander.assert_echo("served in between");
    let replies = client.read_to_end();
    writing.join().expect("everything was written");
    assert_eq!(replies.len(), FRAMES as usize * 8);
    for (number, reply) in (0..FRAMES).zip(replies.chunks_exact(8)) {
        assert_eq!(reply, frame(&number.to_be_bytes()));
    }
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

fn packets_without_bytes_are_packets(on: On) {
    const PACKETS: usize = 3000;
    let served = on.echo(Limits::default());
    let mut bystander = served.connect();
    let mut client = served.connect();
    client.write(&[0; 4 * PACKETS]);
    assert_eq!(client.read(4 * PACKETS), [0; 4 * PACKETS]);
    client.assert_echo("and one with some");
    until("all are counted", || served.metrics().packets_in as usize == PACKETS + 1);
    bystander.assert_echo("still served");
    drop((client, bystander));
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
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
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

/// Echoes, and tells of frames that were refused.
#[derive(Clone, Default)]
struct Telling {
    rejected: Arc<AtomicUsize>,
}

impl PacketHandler for Telling {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        Ok(session.send(packet)?)
    }

    fn on_rejected(&mut self, session: &mut Session<'_>, (): &mut (), error: &FrameError) -> Handled {
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
        self.rejected.fetch_add(1, Ordering::Relaxed);
        Ok(session.send("rejected")?)
    }
}

fn a_frame_over_the_maximum_can_be_skipped_and_the_stream_goes_on(on: On) {
    let handler = Telling::default();
    let rejected = handler.rejected.clone();
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

fn bytes_behind_a_change_of_framing_go_to_the_new_one(on: On) {
    let handler = packet_fn(|session, packet| {
        session.send(packet)?;
        match packet {
            b"binary" => session.set_framing(LengthPrefix::u16_le()),
            b"text" => session.set_framing(Separator::lines()),
            _ => {}
        }
        Ok(())
    });
    let served = Served::start(on.bind().framing(Separator::lines()), handler);
    let mut bystander = served.connect();
    let wire = b"hello\nbinary\n\x03\x00a\nb\x04\x00text\x00\n\nline\n";
    // What is sent behind the word is framed anew; the word itself goes out as it came in.
    let replies = b"hello\nbinary\n\x03\x00a\nb\x04\x00text\x00\n\nline\n";
    let mut at_once = served.connect();
    at_once.write(wire);
    assert_eq!(at_once.read(replies.len()), replies);
    let mut by_the_byte = served.connect();
    for byte in wire {
        by_the_byte.write(&[*byte]);
    }
    assert_eq!(by_the_byte.read(replies.len()), replies);
    bystander.write(b"still served\n");
    assert_eq!(bystander.read(13), b"still served\n");
    drop((at_once, by_the_byte, bystander));
    served.finish();
}

fn the_end_of_the_stream_can_make_the_last_packet(on: On) {
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
    let served = Served::start(on.bind().framing(Separator::lines().deliver_tail()), echo);
    let mut bystander = served.connect();
    let mut client = served.connect();
    client.write(b"one\ntwo");
    client.end();
    assert_eq!(client.read_to_end(), b"one\ntwo\n");
    until("the session has ended", || served.journal.ended_by(CloseKind::PeerClosed) == 1);
    bystander.write(b"still served\n");
    assert_eq!(bystander.read(13), b"still served\n");
    drop((client, bystander));
    served.finish();
}

fn the_whole_stream_can_be_one_packet(on: On) {
    let handler = packet_fn(|session, packet| Ok(session.send(format!("{} bytes", packet.len()))?));
    let served =
        Served::start(on.bind().framing(UntilEof::new()).limits(Limits::default().frame(200_000)), handler);
    let mut clients: Vec<Client> = (0..3).map(|_| served.connect()).collect();
    let sizes = [0, 1, 150_000];
    for (client, size) in clients.iter_mut().zip(sizes) {
        client.write(&vec![b'x'; size]);
        client.end();
    }
    for (client, size) in clients.iter_mut().zip(sizes) {
        let expected = if size == 0 { String::new() } else { format!("{size} bytes") };
        assert_eq!(String::from_utf8_lossy(&client.read_to_end()), expected);
    }
    // One byte too many, wherever it is.
    let (mut client, session) = served.connect_known();
    client.write(&vec![b'x'; 200_001]);
    client.assert_end();
    drop((client, clients));
    assert_eq!(served.journal.await_ending(session.id()).0, CloseKind::Frame);
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

fn a_packet_that_cannot_be_framed_is_refused_and_the_session_goes_on(on: On) {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        if packet == b"too much" {
            // Nothing waits yet, so that the refused packet is the only one.
            let refused = session.send([0; 300]);
            assert!(matches!(refused, Err(SendError::Encode(EncodeError::TooLong { .. }))), "{refused:?}");
            let refused = session.send(vec![0; 5 << 20]);
            assert!(
                matches!(refused, Err(SendError::Full { queued: 0, limit, .. }) if limit == 4 << 20),
                "{refused:?}"
            );
            return Ok(());
        }
        Ok(session.send(packet)?)
    });
    let served = Served::start(on.bind().framing(LengthPrefix::u8()), handler);
    let (mut bystander, mut client) = (served.connect(), served.connect());
    client.write(b"\x08too much");
    until("it was read", || served.metrics().packets_in == 1);
    client.write(b"\x05still");
    assert_eq!(client.read(6), b"\x05still");
    bystander.write(b"\x06served");
    assert_eq!(bystander.read(7), b"\x06served");
    drop((client, bystander));
    served.finish();
}

fn a_packet_of_no_bytes_on_the_wire_harms_nobody(on: On) {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        session.send("")?;
        if packet == b"nothing" { Ok(()) } else { Ok(session.send(packet)?) }
    });
    let served = Served::start(on.bind().framing(Raw::new()), handler);
    let (mut client, session) = served.connect_known();
    let ticket = session.send_tracked("").expect("there is room");
    assert_eq!(ticket.wait(PATIENCE), Ok(()));
    client.write(b"nothing");
    until("it was read", || served.metrics().packets_in == 1);
    client.write(b"something");
    assert_eq!(client.read(9), b"something");
    drop(client);
    served.finish();
}

#[test]
fn urgent_data_between_two_packets_does_not_delay_the_second() {
    let (gate, begun) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
    let (guarded, counted) = (gate.clone(), begun.clone());
    let served = On::SingleReactor.serve(
        Limits::default(),
        packet_fn(move |session, packet| {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(guarded.lock().expect("nobody panics"));
            Ok(session.send(packet)?)
        }),
    );
    let (mut client, mut other) = (served.connect(), served.connect());
    served.await_open();
    // While the shard is held up, all of it arrives: to be told in one event.
    let held = gate.lock().expect("nobody panics");
    other.send("holds it up");
    until("it is held up", || begun.load(Ordering::Relaxed) == 1);
    client.send("before");
    assert_eq!(client.socket.send_out_of_band(b"!").expect("there is room"), 1);
    client.send("behind");
    drop(held);
    assert_eq!((client.recv_text(), client.recv_text()), ("before".to_owned(), "behind".to_owned()));
    assert_eq!(other.recv_text(), "holds it up");
    drop((client, other));
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

    fn encode(&self, payload: &[u8], out: &mut bytes::BytesMut) -> Result<(), EncodeError> {
        self.0.encode(payload, out)
    }
}

fn a_framing_that_refuses_the_same_bytes_for_ever_ends_its_session(on: On) {
    let echo = packet_fn(|session, packet| Ok(session.send(packet)?));
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

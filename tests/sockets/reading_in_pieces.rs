//! The packets of a stream are the same, wherever the network cuts it and however it ends.

use framewire::{CloseKind, Limits, Raw, Separator, Session, UntilEof, packet_fn};

use crate::common::{
    Client, On, PATIENCE, Served, echo, frame, instances, on_each_strategy_and_transport, until,
};
use crate::handlers::gate;

on_each_strategy_and_transport! {
    bytes_that_come_one_at_a_time_make_the_same_packets
    a_hundred_thousand_frames_in_one_write_are_all_answered_in_order
    packets_without_bytes_are_packets
    the_end_of_the_stream_can_make_the_last_packet
    the_whole_stream_can_be_one_packet
    a_packet_of_no_bytes_on_the_wire_harms_nobody
}

// It counts the bytes on the wire.
instances! { frames_cut_in_two_at_any_place_make_the_same_packets:
    on_a_single_reactor = SingleReactor
    on_a_worker_pool = WorkerPool
    on_a_thread_per_connection = ThreadPerConnection
    on_a_unix_socket = UnixSocket
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
    let mut writer = client.writer();
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

fn the_end_of_the_stream_can_make_the_last_packet(on: On) {
    let echo = echo();
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

fn a_packet_of_no_bytes_on_the_wire_harms_nobody(on: On) {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        session.send("")?;
        if packet == b"nothing" { Ok(()) } else { Ok(session.send(packet)?) }
    });
    let served = Served::start(on.bind().framing(Raw::new()), handler);
    let (mut client, session) = served.connect_known();
    let ticket = session.send_tracked("").expect("there is room");
    assert_eq!(ticket.wait_timeout(PATIENCE), Ok(()));
    client.write(b"nothing");
    until("it was read", || served.metrics().packets_in == 1);
    client.write(b"something");
    assert_eq!(client.read(9), b"something");
    drop(client);
    served.finish();
}

#[test]
fn urgent_data_between_two_packets_does_not_delay_the_second() {
    let (gate, blocker) = gate();
    let served = On::SingleReactor.serve(Limits::default(), blocker.handler());
    let (mut client, mut other) = (served.connect(), served.connect());
    served.await_open();
    // While the shard is held up, all of it arrives: to be told in one event.
    other.send("block");
    gate.await_blocked();
    client.send("before");
    assert_eq!(client.socket.send_out_of_band(b"!").expect("there is room"), 1);
    client.send("behind");
    gate.open();
    assert_eq!((client.recv_text(), client.recv_text()), ("before".to_owned(), "behind".to_owned()));
    assert_eq!(other.recv_text(), "block");
    drop((client, other));
    served.finish();
}

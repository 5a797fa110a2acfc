//! Linked sessions over real sockets, wherever two of them share a thread. When packets come is for the simulation.

use std::thread;

use framewire::{
    CloseKind, Handled, LengthPrefix, Limits, LinkError, PacketHandler, Separator, Session, SessionId,
};

use crate::common::{self, Client, On, Served, frame, instances, on_each_strategy_and_transport, until};
use crate::handlers::Scripted;

/// Makes one test for each of the ways to serve under which sessions share threads.
macro_rules! where_sessions_share_threads {
    ($($scenario:ident)+) => { $(
        instances! { $scenario:
            on_a_single_reactor = SingleReactor
            on_a_worker_pool = WorkerPool
            on_a_unix_socket = UnixSocket
            through_layers = Layered
            #[cfg(feature = "websocket")]
            through_a_websocket = WebSocket
            #[cfg(feature = "websocket")]
            through_a_stacked_websocket = StackedWebSocket
        }
    )+ };
}

where_sessions_share_threads! {
    packets_of_each_go_to_the_other_and_so_does_its_end
    a_partner_that_does_not_read_holds_up_its_own_link_alone
    a_session_whose_partner_is_reset_is_closed
}

on_each_strategy_and_transport! {
    a_session_that_ends_its_side_still_hears_its_peer
}

/// Links each two sessions of a thread that come one after the other.
#[derive(Clone, Default)]
struct Pairs {
    waiting: Option<SessionId>,
}

impl PacketHandler for Pairs {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        match self.waiting.take() {
            Some(other) => session.link(other)?,
            None => {
                session.pause();
                self.waiting = Some(session.id());
            }
        }
        Ok(())
    }

    fn on_packet(&mut self, _: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        panic!("{:?} was handed out", packet.escape_ascii());
    }
}

/// Two clients whose sessions are linked, and others that have come with them.
fn pair(served: &Served) -> (Client, Client, Vec<Client>) {
    // Two workers: of four sessions, two are on each.
    let mut clients: Vec<Client> = (0..4).map(|_| served.connect()).collect();
    served.await_open();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(number.to_string());
    }
    let partners: Vec<usize> =
        clients.iter_mut().map(|client| client.recv_text().parse().expect("one of us")).collect();
    assert!(
        (0..4).all(|number| partners[partners[number]] == number && partners[number] != number),
        "{partners:?}"
    );
    let other = clients.remove(partners[0]);
    let one = clients.remove(0);
    (one, other, clients)
}

fn packets_of_each_go_to_the_other_and_so_does_its_end(on: On) {
    let served = on.serve(Limits::default(), Pairs::default());
    let (mut one, mut other, rest) = pair(&served);
    let say = |mut client: Client, name: &'static str| {
        thread::spawn(move || {
            for number in 0..500 {
                client.send(format!("{name} {number} {}", "x".repeat(number % 97 * 20)));
            }
        })
    };
    let talking = [say(one.writer(), "one"), say(other.writer(), "other")];
    for number in 0..500 {
        let text = "x".repeat(number % 97 * 20);
        assert_eq!(one.recv_text(), format!("other {number} {text}"));
        assert_eq!(other.recv_text(), format!("one {number} {text}"));
    }
    talking.into_iter().for_each(common::join);
    drop((one, other, rest));
    let served = {
        let (mut one, mut other, rest) = {
            until("all have ended", || served.running.session_count() == 0);
            pair(&served)
        };
        one.send("the last");
        one.end();
        assert_eq!(other.recv_text(), "the last");
        other.assert_end();
        other.send("still heard");
        assert_eq!(one.recv_text(), "still heard");
        other.end();
        one.assert_end();
        drop((one, other, rest));
        served
    };
    until("all have ended", || served.running.session_count() == 0);
    assert!(served.journal.ended_by(CloseKind::PeerClosed) >= 2);
    served.finish();
}

fn a_partner_that_does_not_read_holds_up_its_own_link_alone(on: On) {
    const PACKETS: usize = 300;
    let served = on.serve(Limits::default(), Pairs::default());
    let (one, mut other, mut rest) = pair(&served);
    let mut writer = one.writer();
    let talking = thread::spawn(move || {
        for number in 0..PACKETS {
            writer.send(vec![number as u8; 100_000]);
        }
    });
    // What is held is bounded, and the link of the others goes on.
    for _ in 0..100 {
        rest[0].send("the others");
        assert_eq!(rest[1].recv_text(), "the others");
        let buffered = served.metrics().buffered;
        assert!(buffered < 8 << 20, "{buffered} bytes are buffered");
    }
    for number in 0..PACKETS {
        assert!(other.recv().iter().all(|byte| *byte == number as u8), "packet {number}");
    }
    common::join(talking);
    drop((one, other, rest));
    served.finish();
}

fn a_session_whose_partner_is_reset_is_closed(on: On) {
    let served = on.serve(Limits::default(), Pairs::default());
    let (mut one, mut other, mut rest) = pair(&served);
    one.send("before");
    assert_eq!(other.recv_text(), "before");
    one.reset();
    other.assert_end();
    drop(other);
    rest.iter_mut().for_each(Client::end);
    rest.iter_mut().for_each(Client::assert_end);
    drop(rest);
    until("all have ended", || served.running.session_count() == 0);
    // A Unix socket knows no reset: there it is an end.
    let lost = served.journal.ended_by(CloseKind::LinkLost);
    assert_eq!(lost, usize::from(on != On::UnixSocket));
    served.finish();
}

/// Replies to `end` and ends its side, and closes at `close`.
fn a_session_that_ends_its_side_still_hears_its_peer(on: On) {
    let handler = Scripted::answering(|session: &mut Session<'_>, (), packet| {
        match packet {
            b"end" => {
                session.send("as you like")?;
                session.end();
            }
            b"close" => session.close_with("asked for behind the end"),
            other => panic!("{:?}", other.escape_ascii()),
        }
        Ok(())
    });
    let served = on.serve(Limits::default(), handler);
    let (mut client, session) = served.connect_known();
    client.send("end");
    assert_eq!(client.recv_text(), "as you like");
    client.assert_end();
    assert_eq!(served.journal.ending(session.id()), None);
    client.send("close");
    let (_, text) = served.journal.await_closing(session.id());
    assert_eq!(text, "handler: asked for behind the end");
    drop(client);
    served.finish();
}

/// Links each session to the first one; keeps what that returned.
#[test]
fn sessions_with_threads_of_their_own_cannot_be_linked() {
    let handler = Scripted::answering(|session: &mut Session<'_>, (), packet| {
        let other = SessionId::from_u128(std::str::from_utf8(packet)?.parse()?);
        let error = session.link(other).err();
        Ok(session.send(match error {
            Some(LinkError::Elsewhere { other: named, .. }) if named == other => "elsewhere",
            _ => "linked",
        })?)
    });
    let served = On::ThreadPerConnection.serve(Limits::default(), handler);
    let (first, session) = served.connect_known();
    let (mut second, _) = served.connect_known();
    second.assert_reply(&session.id().to_u128().to_string(), "elsewhere");
    drop((first, second));
    served.finish();
}

#[test]
fn sessions_of_two_listeners_are_linked_each_in_its_framing() {
    let server = On::SingleReactor.bind().framing(LengthPrefix::u32_be());
    let server = On::SingleReactor.also(server, Separator::lines());
    let served = Served::start(server, Pairs::default());
    let mut binary = served.connect();
    served.await_open();
    let mut lines = served.connect_to(1);
    lines.write(b"one\ntwo\n");
    assert_eq!((binary.recv_text(), binary.recv_text()), ("one".to_owned(), "two".to_owned()));
    binary.write(&[frame(b"three"), frame(b"four")].concat());
    assert_eq!(lines.read(11), b"three\nfour\n");
    drop((binary, lines));
    served.finish();
}

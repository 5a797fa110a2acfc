//! Connections that a server makes: what becomes of each, to the millisecond.

use std::{
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::BytesMut;

use crate::{
    SendError,
    addr::{Addr, Origin},
    dial::{Dial, UpstreamState},
    error::{CloseReason, DialError},
    framing::{Decoded, EncodeError, FrameError, Framing, Separator},
    sim::{Answer, Attempt, Callback, Conn, Setup, World, errno, frame},
    testing::layers::{Scramble, Scrambler},
};

pub(super) fn addr(port: u16) -> Addr {
    Addr::Ip(([192, 0, 2, 1], port).into())
}

pub(super) fn to(addrs: &[Addr]) -> Dial {
    Dial::to(addrs.iter().map(ToString::to_string).collect::<Vec<_>>())
}

pub(super) fn world(setup: Setup) -> World {
    World::new(setup, |_| ())
}

fn attempts(world: &World) -> Vec<(u64, Addr)> {
    world.net().attempts().into_iter().map(|Attempt { at, to, .. }| (at, to)).collect()
}

/// The connection that was made last.
pub(super) fn last(world: &World) -> Conn {
    world.net().attempts().last().expect("something was dialled").conn
}

/// The only failure, and when it was told.
pub(super) fn failure(world: &World) -> (u64, DialError) {
    let mut failed = world.log.failed_dials();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let (at, _, error) = failed.remove(0);
    (at, error)
}

pub(super) fn serves(world: &mut World, conn: Conn) {
    world.net().say(conn, &frame(b"are you there"));
    assert_eq!(world.expect(conn, 17), frame(b"are you there"));
}

pub(super) fn end(mut world: World) {
    world.run_to_rest();
    world.assert_empty();
    world.shut_down(Duration::from_secs(1));
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_connection_that_is_made_is_a_session_like_any_other() {
    let origins = Arc::new(Mutex::new(Vec::new()));
    let seen = origins.clone();
    let mut world = World::new(Setup::default(), move |probe| {
        let seen = seen.clone();
        probe.open = Box::new(move |session, ()| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((session.origin(), session.peer_addr()));
            Ok(session.send("hello")?)
        });
    });
    world.net().answer(&addr(1), Answer::Accept, 30);
    let upstream = world.dial(to(&[addr(1)]));
    assert_eq!(upstream.state(), UpstreamState::Connecting);
    assert_eq!(upstream.send("too early"), Err(SendError::NotConnected));
    world.run_until(29);
    assert_eq!((world.log.lines().len(), world.metrics().sessions), (0, 0));
    world.run_until(31);
    let conn = last(&world);
    assert_eq!(world.log.times(&Callback::Open), [30]);
    let seen = origins.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(seen, [(Origin::Dialled(upstream.id()), addr(1))]);
    assert_eq!(world.net().hear_all(conn), frame(b"hello"));
    serves(&mut world, conn);

    assert!(matches!(upstream.state(), UpstreamState::Up(_)));
    assert_eq!(upstream.send("from afar"), Ok(()));
    assert_eq!(world.expect(conn, 13), frame(b"from afar"));
    world.net().end(conn);
    world.run_to_rest();
    assert_eq!(upstream.state(), UpstreamState::Closed);
    assert_eq!(upstream.send("too late"), Err(SendError::Closed));
    assert_eq!(world.metrics().opened, 1);
    end(world);
}

#[test]
fn a_refusal_is_told_with_its_address_and_cause() {
    for after in [0, 7] {
        let mut world = world(Setup::default());
        world.net().answer(&addr(1), Answer::Refuse(errno::ECONNREFUSED), after);
        let upstream = world.dial(to(&[addr(1)]));
        world.run_to_rest();
        let (at, error) = failure(&world);
        assert_eq!(at, after);
        assert!(
            matches!(&error, DialError::Connect { addr: at, source } if *at == addr(1)
                && source.kind() == ErrorKind::ConnectionRefused),
            "{error:?}"
        );
        assert_eq!(upstream.state(), UpstreamState::Closed);
        assert_eq!(world.log.lines(), [], "no session came of it");
        end(world);
    }
}

#[test]
fn an_address_that_does_not_answer_is_given_up_when_its_time_is_over() {
    for (timeout, expected) in [(None, 5_000), (Some(Duration::from_millis(120)), 120)] {
        let mut world = world(Setup::default());
        world.net().answer(&addr(1), Answer::Silence, 0);
        let dial = to(&[addr(1)]);
        world.dial(timeout.map_or(dial.clone(), |timeout| dial.timeout(timeout)));
        world.run_to_rest();
        let (at, error) = failure(&world);
        assert_eq!(at, expected);
        let after = Duration::from_millis(expected);
        assert!(
            matches!(&error, DialError::TimedOut { addr: at, after: took } if *at == addr(1) && *took == after),
            "{error:?}"
        );
        end(world);
    }
}

#[test]
fn several_addresses_are_tried_in_turn_until_one_answers() {
    let mut world = world(Setup::default());
    let addrs: Vec<Addr> = (1..=5).map(addr).collect();
    world.net().answer(&addrs[0], Answer::Refuse(errno::ECONNREFUSED), 10);
    world.net().answer(&addrs[1], Answer::Silence, 0);
    world.net().answer(&addrs[2], Answer::Accept, 3);
    world.net().answer(&addrs[3], Answer::Accept, 0);
    world.dial(to(&addrs).timeout(Duration::from_secs(1)));
    world.run_until(2_000);
    let expected = [(0, addr(1)), (10, addr(2)), (1_010, addr(3))];
    assert_eq!(attempts(&world), expected);
    assert_eq!(world.log.times(&Callback::Open), [1_013]);
    assert_eq!(world.log.failed_dials().len(), 0, "it has not failed");
    let conn = last(&world);
    serves(&mut world, conn);
    world.net().end(conn);
    end(world);
}

#[test]
fn the_error_is_that_of_the_address_that_was_tried_last() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Silence, 0);
    world.net().answer(&addr(2), Answer::Refuse(errno::EPERM), 1);
    world.dial(to(&[addr(1), addr(2)]).timeout(Duration::from_millis(50)));
    world.run_to_rest();
    let (at, error) = failure(&world);
    assert_eq!(at, 51);
    assert!(
        error.to_string().starts_with("cannot connect to 192.0.2.1:2: ")
            && error.to_string().ends_with("; may this process use it?"),
        "{error}"
    );
    end(world);
}

#[test]
fn a_connection_that_is_reset_at_once_is_a_session_that_ends() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Reset, 5);
    let upstream = world.dial(to(&[addr(1)]));
    world.run_to_rest();
    assert_eq!((world.metrics().opened, world.metrics().closed_total()), (1, 1));
    assert_eq!(world.log.failed_dials().len(), 0);
    assert_eq!(upstream.state(), UpstreamState::Closed);
    end(world);
}

#[test]
fn a_unix_socket_whose_queue_is_full_is_tried_again_until_its_time_is_over() {
    let path = Addr::Unix(Some("/run/queue.sock".into()));
    for opens_after in [None, Some(75)] {
        let mut world = world(Setup::default());
        world.net().answer(&path, Answer::QueueFull, 0);
        if let Some(tick) = opens_after {
            let path = path.clone();
            world.net().at(tick, move |net| net.answer(&path, Answer::Accept, 0));
        }
        world.dial(Dial::to("unix:/run/queue.sock").timeout(Duration::from_millis(205)));
        world.run_until(1_000);
        match opens_after {
            None => {
                let (at, error) = failure(&world);
                assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
                assert_eq!(at, 205);
            }
            Some(_) => {
                assert_eq!(world.log.times(&Callback::Open), [80]);
                let conn = last(&world);
                serves(&mut world, conn);
                world.net().end(conn);
            }
        }
        end(world);
    }
}

#[test]
fn nobody_is_connected_to_itself() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Itself, 2);
    world.dial(to(&[addr(1)]));
    world.run_to_rest();
    let (_, error) = failure(&world);
    assert!(error.to_string().contains("192.0.2.1:1: nobody else listens there"), "{error}");
    assert_eq!(world.log.lines(), []);
    end(world);
}

#[test]
fn what_is_no_address_is_told() {
    for (dial, shown) in [
        (Dial::to("nowhere"), "\"nowhere\" is no address to connect to: it has no port"),
        (Dial::to(Vec::<String>::new()), "\"\" is no address to connect to: no address was given"),
    ] {
        let mut world = world(Setup::default());
        world.dial(dial);
        world.run_to_rest();
        let (_, error) = failure(&world);
        assert!(error.to_string().starts_with(shown), "{error}");
        end(world);
    }
}

#[test]
fn names_are_looked_up_and_all_their_addresses_tried() {
    let mut world = world(Setup::default());
    world.net().name("example.com", Ok(vec![addr(1), addr(2)]), 40);
    world.net().answer(&addr(1), Answer::Refuse(errno::ECONNREFUSED), 5);
    world.net().answer(&addr(2), Answer::Accept, 5);
    world.dial(Dial::to("example.com:7"));
    world.dial(Dial::to(("example.com", 7)));
    world.run_until(100);
    assert_eq!(attempts(&world), [(40, addr(1)), (40, addr(1)), (45, addr(2)), (45, addr(2))]);
    assert_eq!(world.log.times(&Callback::Open), [50, 50]);
    let conns: Vec<Conn> = world.net().attempts().iter().map(|attempt| attempt.conn).collect();
    conns.into_iter().for_each(|conn| world.net().end(conn));
    end(world);
}

#[test]
fn a_name_that_is_not_found_or_not_in_time_is_told() {
    let nothing = Ok(Vec::new());
    for (found, after, told_at, shown) in [
        (Err(ErrorKind::NotFound), 30, 30, "cannot look up example.com:7: entity not found"),
        (nothing, 30, 30, "cannot look up example.com:7: it has no address"),
        (Ok(vec![addr(1)]), 6_000, 5_000, "cannot look up example.com:7: no answer within 5s"),
    ] {
        let mut world = world(Setup::default());
        world.net().answer(&addr(1), Answer::Accept, 0);
        world.net().name("example.com", found, after);
        world.dial(Dial::to("example.com:7"));
        world.run_to_rest();
        let (at, error) = failure(&world);
        assert_eq!(at, told_at);
        assert!(error.to_string().starts_with(shown), "{error}");
        assert_eq!(attempts(&world), []);
        end(world);
    }
}

#[test]
fn a_dial_has_a_framing_and_layers_of_its_own() {
    const KEY: u8 = 9;
    let mut setup = Setup::default();
    // Those of the server are for who connects to it.
    setup.layers.push(|_| -> Scramble { panic!("the connection was not accepted") });
    let mut world = World::new(setup, |probe| {
        probe.open = Box::new(|session, ()| {
            assert_eq!(session.protocol(), Some(&b"scrambled"[..]));
            Ok(())
        });
    });
    world.net().answer(&addr(1), Answer::Accept, 1);
    let dial = to(&[addr(1)]).framing(Separator::lines()).layer(|connection| {
        assert_eq!(connection.listener(), None);
        Scramble::new(KEY)
    });
    let upstream = world.dial(dial);
    world.run_until(10);
    assert_eq!(upstream.state(), UpstreamState::Connecting, "its layer is not open");
    let (conn, mut peer) = (last(&world), Scrambler::new(KEY));
    let wire = [peer.greet(), peer.encode(b"a line\n")].concat();
    world.net().say(conn, &wire);
    world.run_until(20);
    let heard = world.net().hear_all(conn);
    assert_eq!(peer.decode(&heard), b"a line\n");
    assert!(matches!(upstream.state(), UpstreamState::Up(_)));
    world.net().end(conn);
    end(world);
}

#[test]
fn an_address_whose_handshake_fails_is_followed_by_the_next() {
    let mut world = world(Setup::default());
    (1..=2).for_each(|port| world.net().answer(&addr(port), Answer::Accept, 1));
    world.dial(to(&[addr(1), addr(2)]).layer(|_| Scramble::new(9)));
    world.run_until(10);
    let first = last(&world);
    world.net().say(first, b"GET / HTTP/1.1");
    world.run_until(20);
    assert_eq!(attempts(&world), [(0, addr(1)), (10, addr(2))]);
    world.net().leave(first);
    let second = last(&world);
    world.net().end(second);
    world.run_to_rest();
    let (_, error) = failure(&world);
    assert!(
        matches!(&error, DialError::Opening { addr: at, reason: CloseReason::Layer(_) | CloseReason::PeerClosed } if *at == addr(2)),
        "{error:?}"
    );
    assert_eq!((world.metrics().opened, world.log.lines().len()), (0, 0));
    end(world);
}

#[test]
fn a_panic_in_a_framing_or_a_layer_of_a_dial_is_its_failure() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 1);
    world.dial(to(&[addr(1)]).layer(|_| -> Scramble { panic!("no layer today") }));
    world.run_to_rest();
    let (_, error) = failure(&world);
    assert!(error.to_string().contains("no layer today"), "{error}");
    assert_eq!(world.metrics().panics, 1);
    end(world);
}

/// A framing that cannot be cloned.
#[derive(Debug)]
struct Only(Separator);

impl Clone for Only {
    fn clone(&self) -> Self {
        panic!("there is no other")
    }
}

impl Framing for Only {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.0.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.0.encode(payload, out)
    }
}

#[test]
fn a_panic_in_the_clone_of_a_framing_is_the_failure_of_its_dial() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 1);
    world.dial(to(&[addr(1)]).framing(Only(Separator::lines())));
    world.run_to_rest();
    let (_, error) = failure(&world);
    assert!(error.to_string().contains("there is no other"), "{error}");
    assert_eq!(world.metrics().panics, 1);
    end(world);
}

#[test]
fn more_layers_than_a_session_may_have_are_refused() {
    let mut world = world(Setup::default());
    world.net().answer(&addr(1), Answer::Accept, 1);
    world.dial((0..9).fold(to(&[addr(1)]), |dial, _| dial.layer(|_| Scramble::new(9))));
    world.run_to_rest();
    assert!(failure(&world).1.to_string().ends_with("a session has 8 layers at most"));
    end(world);
}

#[test]
fn a_handler_that_refuses_a_connection_of_ours_has_seen_it() {
    let mut world = World::new(Setup::default(), |probe| {
        probe.open = Box::new(|_, ()| Err(std::fmt::Error.into()));
    });
    world.net().answer(&addr(1), Answer::Accept, 1);
    let upstream = world.dial(to(&[addr(1)]));
    world.run_until(10);
    let conn = last(&world);
    world.net().leave(conn);
    world.run_to_rest();
    assert_eq!((upstream.state(), world.log.failed_dials().len()), (UpstreamState::Closed, 0));
    end(world);
}

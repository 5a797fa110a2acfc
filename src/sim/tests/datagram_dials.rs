//! Sessions over UDP with peers that this side has chosen.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    datagrams::{ms, peer, setup, with},
    dials::failure,
};
use crate::{
    SendError,
    addr::{Addr, Origin},
    dial::{Dial, Reconnect, Upstream, UpstreamState, WhileDown},
    error::{CloseKind, CloseReason, DialError},
    framing::Separator,
    id::ShardId,
    limits::Limits,
    shard::Beyond,
    sim::{Answer, Call, Callback, Fail, Faults, Rng, Setup, World, errno},
    testing::layers::Scramble,
};

/// A server that is bound to no address.
fn unbound(limits: Limits) -> Setup {
    Setup { listeners: 0, ..setup(limits) }
}

fn refuses(world: &World, peer: SocketAddr, why: i32, after: u64) {
    world.net().answer(&Addr::Ip(peer), Answer::Refuse(why), after);
}

/// The only socket that is connected to this peer.
fn socket_to(world: &World, peer: SocketAddr) -> usize {
    let sockets = world.net().sockets_to(peer);
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    sockets[0]
}

/// A datagram of a peer, to the socket that is connected to it.
fn reply(world: &World, from: SocketAddr, datagram: &[u8]) {
    let socket = socket_to(world, from);
    world.net().throw(&[socket], from, datagram);
}

fn end(mut world: World) {
    world.run_to_rest();
    world.shut_down(ms(1_000));
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_session_is_opened_at_once_and_is_one_like_any_other() {
    let origins = Arc::new(Mutex::new(Vec::new()));
    let seen = origins.clone();
    let mut world = World::new(unbound(Limits::default()), move |probe| {
        let seen = seen.clone();
        probe.open = Box::new(move |session, ()| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((session.origin(), session.peer_addr(), session.local_addr()));
            Ok(session.send("hello")?)
        });
    });
    let upstream = world.dial(Dial::to_udp(peer(1)));
    assert_eq!(upstream.send("too early"), Err(SendError::NotConnected));
    world.run_for(1);
    assert!(matches!(upstream.state(), UpstreamState::Up(_)));
    let seen = origins.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let local = Addr::Ip(([10, 0, 0, 1], 40_000).into());
    assert_eq!(seen, [(Origin::Dialled(upstream.id()), Addr::Ip(peer(1)), local)]);
    assert_eq!(upstream.send("from afar"), Ok(()));
    world.run_for(1);
    reply(&world, peer(1), b"one");
    reply(&world, peer(1), b"");
    world.run_for(1);
    let heard = world.caught(peer(1));
    assert_eq!(heard, [&b"hello"[..], b"from afar", b"one", b""]);
    let metrics = world.metrics();
    assert_eq!((metrics.sessions, metrics.accepted, metrics.opened), (1, 0, 1));
    assert_eq!((metrics.packets_in, metrics.bytes_in, metrics.buffered), (2, 3, 0));
    upstream.close();
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(3, CloseKind::Local)]);
    world.assert_empty();
    assert_eq!(world.net().descriptors(), 0, "its socket is closed");
    end(world);
}

#[test]
fn each_dial_of_a_server_without_an_address_has_a_socket_of_its_own() {
    let mut world = World::new(unbound(Limits::default()), |_| {});
    let upstreams: Vec<Upstream> = (0..50).map(|_| world.dial(Dial::to_udp(peer(1)))).collect();
    world.run_for(1);
    let sockets = world.net().sockets_to(peer(1));
    assert_eq!(sockets.len(), 50);
    for (number, socket) in sockets.iter().enumerate() {
        (0..number).for_each(|_| world.net().throw(&[*socket], peer(1), b"x"));
        // The kernel keeps it from one who is not its peer.
        world.net().throw(&[*socket], peer(2), b"forged");
    }
    world.run_for(1);
    let mut got: Vec<usize> = upstreams
        .iter()
        .map(|upstream| {
            let UpstreamState::Up(id) = upstream.state() else { panic!("it is up") };
            let own = world
                .log
                .lines()
                .into_iter()
                .filter(|(_, session, told)| *session == id && matches!(told, Callback::Packet(_)));
            own.count()
        })
        .collect();
    got.sort_unstable();
    assert_eq!(got, (0..50).collect::<Vec<_>>());
    upstreams.iter().for_each(Upstream::close);
    end(world);
}

#[test]
fn a_server_on_one_thread_dials_from_its_own_address() {
    let mut world = with(Limits::default(), |_| {});
    let upstream = world.dial(Dial::to_udp(peer(1)));
    world.run_for(1);
    assert_eq!(world.net().descriptors(), 1, "no other socket is opened");
    assert_eq!(upstream.send("ping"), Ok(()));
    world.run_for(1);
    world.throw(peer(1), &[b"pong"]);
    world.throw(peer(2), &[b"hello"]);
    world.run_for(1);
    assert_eq!(world.caught(peer(1)), [b"ping", b"pong"]);
    assert_eq!(world.metrics().opened, 2, "the reply came to the session that was dialled");

    for known in [1, 2] {
        let again = world.dial(Dial::to_udp(peer(known)));
        world.run_for(1);
        assert_eq!(again.state(), UpstreamState::Closed);
        let (_, _, error) = world.log.failed_dials().pop().expect("it has failed");
        assert!(matches!(&error, DialError::Known { addr } if *addr == Addr::Ip(peer(known))), "{error:?}");
    }
    upstream.close();
    world.run_for(1);
    let upstream = world.dial(Dial::to_udp(peer(1)));
    world.run_for(1);
    assert!(matches!(upstream.state(), UpstreamState::Up(_)), "it is not known any more");
    upstream.close();
    world.abort();
    end(world);
}

#[test]
fn workers_dial_from_sockets_of_their_own_and_are_used_evenly() {
    let mut world = World::new(Setup { workers: 3, ..setup(Limits::default()) }, |_| {});
    let upstreams: Vec<Upstream> = (1..=12).map(|number| world.dial(Dial::to_udp(peer(number)))).collect();
    world.run_for(1);
    for number in 1..=12 {
        reply(&world, peer(number), b"hello");
    }
    world.run_for(1);
    (1..=12).for_each(|number| assert_eq!(world.caught(peer(number)), [b"hello"]));
    let mut shards: Vec<u32> = world.log.lines().iter().map(|(_, id, _)| id.shard().0).collect();
    shards.sort_unstable();
    assert_eq!(shards, [[1; 8], [2; 8], [3; 8]].concat(), "two callbacks for each of twelve");
    upstreams.iter().for_each(Upstream::close);
    end(world);
}

#[test]
fn a_peer_that_is_not_there_ends_the_session_and_the_next_attempt_goes_elsewhere() {
    let mut world = World::new(unbound(Limits::default()), |probe| {
        probe.open = Box::new(|session, ()| Ok(session.send("anybody?")?));
    });
    refuses(&world, peer(1), errno::ECONNREFUSED, 5);
    let plan = Reconnect::delays([ms(100)]).attempts(10);
    let to = [peer(1), peer(2)];
    let upstream = world.dial(Dial::to_udp(to).reconnect(plan).while_down(WhileDown::Keep { bytes: 1_000 }));
    world.run_until(50);
    assert_eq!(world.log.closes(), [(5, CloseKind::Io)]);
    assert_eq!((upstream.state(), upstream.send("kept")), (UpstreamState::Connecting, Ok(())));
    world.run_until(200);
    assert_eq!(world.log.times(&Callback::Open), [0, 105]);
    assert_eq!(world.caught(peer(2)), [&b"anybody?"[..], b"kept"]);
    refuses(&world, peer(2), errno::ECONNREFUSED, 5);
    assert_eq!(upstream.send("still there?"), Ok(()));
    world.run_until(310);
    assert_eq!(world.log.times(&Callback::Open), [0, 105, 305], "after the last address comes the first");
    assert_eq!(world.net().sockets_to(peer(1)).len(), 1);
    upstream.close();
    end(world);
}

#[test]
fn a_dial_ends_with_its_last_session_and_says_why() {
    for attempts in [None, Some(0)] {
        let mut world = World::new(unbound(Limits::default()), |probe| {
            probe.open = Box::new(|session, ()| Ok(session.send("anybody?")?));
        });
        refuses(&world, peer(1), errno::ECONNREFUSED, 5);
        let dial = Dial::to_udp(peer(1));
        let upstream = world.dial(match attempts {
            Some(attempts) => dial.reconnect(Reconnect::delays([]).attempts(attempts)),
            None => dial,
        });
        world.run_to_rest();
        assert_eq!((upstream.state(), world.log.closes()), (UpstreamState::Closed, vec![(5, CloseKind::Io)]));
        match attempts {
            None => assert_eq!(world.log.failed_dials().len(), 0),
            Some(_) => match failure(&world).1 {
                DialError::Lost { reason: CloseReason::Io(error), .. } => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                }
                other => panic!("{other:?}"),
            },
        }
        end(world);
    }
}

#[test]
fn an_address_without_a_route_is_followed_by_the_next() {
    let mut world = World::new(unbound(Limits::default()), |_| {});
    refuses(&world, peer(1), errno::ENETUNREACH, 0);
    world.net().name("example.com", Ok(vec![Addr::Ip(peer(1)), Addr::Ip(peer(2))]), 40);
    let upstream = world.dial(Dial::to_udp("example.com:7"));
    world.run_until(41);
    assert_eq!(world.log.times(&Callback::Open), [40]);
    assert_eq!(world.net().sockets_to(peer(2)).len(), 1);
    upstream.close();
    world.dial(Dial::to_udp(peer(1)));
    world.run_for(1);
    let (_, error) = failure(&world);
    assert!(error.to_string().starts_with("cannot connect to 192.0.2.1:1: "), "{error}");
    end(world);
}

#[test]
fn a_name_that_is_not_found_in_time_is_told() {
    let mut world = World::new(unbound(Limits::default()), |_| {});
    world.net().name("example.com", Ok(vec![Addr::Ip(peer(1))]), 1_000);
    world.dial(Dial::to_udp("example.com:7").timeout(ms(100)));
    world.run_to_rest();
    let (at, error) = failure(&world);
    assert!(at == 100 && matches!(error, DialError::Lookup { .. }), "{at}: {error:?}");
    end(world);
}

#[test]
fn a_silent_peer_is_forgotten_and_one_that_is_heard_is_not() {
    let mut world = World::new(unbound(Limits::default().idle_timeout(ms(1_000))), |_| {});
    let upstreams = [1, 2].map(|number| world.dial(Dial::to_udp(peer(number))));
    world.run_until(600);
    assert_eq!(upstreams[0].send("what is sent is no sign of the peer's life"), Ok(()));
    reply(&world, peer(2), b"here");
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(1_000, CloseKind::Idle), (1_600, CloseKind::Idle)]);
    assert!(upstreams.iter().all(|upstream| upstream.state() == UpstreamState::Closed));
    world.assert_empty();
    end(world);
}

#[test]
fn a_dialled_peer_counts_for_the_limits_and_makes_nobody_forgotten() {
    for beyond in [Beyond::Refuse, Beyond::ForgetIdlest] {
        let setup = Setup { connections: 2, datagrams: Some(beyond), ..setup(Limits::default()) };
        let mut world = World::new(setup, |_| {});
        let upstream = world.dial(Dial::to_udp(peer(1)));
        world.throw(peer(2), &[b"x"]);
        world.run_for(1);
        world.dial(Dial::to_udp(peer(3)));
        world.run_for(1);
        assert!(matches!(failure(&world).1, DialError::Full { connections: 2 }));
        assert_eq!(world.metrics().sessions, 2);
        world.throw(peer(4), &[b"x"]);
        world.run_for(1);
        let metrics = world.metrics();
        let expected = if beyond == Beyond::Refuse { (2, 1, 0) } else { (2, 0, 1) };
        assert_eq!(
            (metrics.sessions, metrics.refused_total(), metrics.closed(CloseKind::Forgotten)),
            expected,
            "a peer that comes makes room for itself, also in place of one that was dialled"
        );
        upstream.close();
        world.abort();
        end(world);
    }
}

#[test]
fn what_cannot_be_dialled_is_refused_by_name() {
    let cases = [
        (Dial::to(peer(1)), "a server on UDP makes no connections over TCP; use Dial::to_udp, "),
        (Dial::to_udp(peer(1)).framing(Separator::lines()), "over UDP a datagram is a packet; "),
        (Dial::to_udp(peer(1)).layer(|_| Scramble::new(9)), "a layer transforms a stream, "),
        (
            Dial::to_udp("unix:/run/a.sock"),
            "\"unix:/run/a.sock\" is no address to connect to: UDP has no paths",
        ),
        (Dial::to_udp(std::path::Path::new("/run/a.sock")), "\"unix:/run/a.sock\" is no address"),
        (Dial::to_udp("nowhere"), "\"nowhere\" is no address to connect to: it has no port"),
    ];
    for (dial, shown) in cases {
        let mut world = World::new(unbound(Limits::default()), |_| {});
        let upstream = world.dial(dial);
        world.run_to_rest();
        let (_, error) = failure(&world);
        assert!(error.to_string().starts_with(shown), "{error}");
        assert_eq!(upstream.state(), UpstreamState::Closed);
        end(world);
    }
}

#[test]
fn a_callback_is_told_at_once_what_cannot_be_dialled() {
    fn fails(dial: Result<crate::DialId, DialError>) -> bool {
        matches!(dial, Err(DialError::Unsuited { .. }))
    }
    for datagrams in [Some(Beyond::Refuse), None] {
        let mut world = World::new(Setup { datagrams, ..Setup::default() }, |probe| {
            probe.start = Box::new(move |shard, _| {
                let [tcp, udp] = [Dial::to(peer(1)), Dial::to_udp(peer(1))].map(|dial| shard.connect(dial));
                let (wrong, right) = if datagrams.is_some() { (tcp, udp) } else { (udp, tcp) };
                assert!(fails(wrong) && right.is_ok());
            });
        });
        let wrong = if datagrams.is_some() { Dial::to(peer(1)) } else { Dial::to_udp(peer(1)) };
        world.dial(wrong);
        world.run_for(1);
        let failed = world.log.failed_dials();
        assert!(failed.iter().any(|(_, _, error)| matches!(error, DialError::Unsuited { .. })), "{failed:?}");
        world.abort();
        end(world);
    }
}

#[test]
fn a_socket_that_takes_nothing_makes_its_own_session_wait_alone() {
    let mut world = World::new(unbound(Limits::default()), |_| {});
    let upstreams = [1, 2].map(|number| world.dial(Dial::to_udp(peer(number))));
    world.run_for(1);
    let jammed = socket_to(&world, peer(1));
    world.net().jam(jammed, true);
    for upstream in &upstreams {
        (0..3).for_each(|_| assert_eq!(upstream.send("x"), Ok(())));
    }
    world.run_for(1);
    assert_eq!((world.caught(peer(1)).len(), world.caught(peer(2)).len()), (0, 3));
    world.net().jam(jammed, false);
    world.run_for(1);
    assert_eq!(world.caught(peer(1)), [b"x"; 3]);
    upstreams.iter().for_each(Upstream::close);
    end(world);
}

#[test]
fn a_stop_ends_dialled_sessions_and_look_ups() {
    for aborts in [false, true] {
        let mut world = World::new(unbound(Limits::default()), |_| {});
        world.net().name("example.com", Ok(vec![Addr::Ip(peer(2))]), 1_000);
        let upstream = world.dial(Dial::to_udp(peer(1)));
        let waiting = world.dial(Dial::to_udp("example.com:1"));
        world.run_for(10);
        if aborts {
            world.abort()
        } else {
            world.shut_down(ms(60_000))
        }
        world.run_to_rest();
        assert_eq!([upstream.state(), waiting.state()], [UpstreamState::Closed; 2]);
        assert!(matches!(failure(&world).1, DialError::Stopped), "that of the name");
        world.assert_gone();
    }
}

/// Two addresses are dialled, the first of which has no route; some packets there and back; the end.
fn script(fail: Option<Fail>) -> (World, [u64; Call::ALL.len()]) {
    let mut setup = unbound(Limits::default().idle_timeout(ms(50)));
    setup.faults.fail = fail;
    let mut world = World::new(setup, |_| {});
    refuses(&world, peer(1), errno::ENETUNREACH, 0);
    let upstream = world.dial(Dial::to_udp([peer(1), peer(2), peer(3)]));
    world.run_until(20);
    let open = world.metrics().opened;
    assert_eq!(open + world.log.failed_dials().len() as u64, 1, "it is told what has become of it, once");
    assert!(fail.is_some() || open == 1);
    for _ in 0..3 {
        let sockets = world.net().sockets_to(peer(2));
        sockets.into_iter().for_each(|socket| world.net().throw(&[socket], peer(2), b"x"));
        world.run_for(2);
    }
    world.run_to_rest();
    assert_eq!(upstream.state(), UpstreamState::Closed);
    let counts = Call::ALL.map(|call| world.net().calls.of(call));
    (world, counts)
}

#[test]
fn whichever_call_fails_a_dial_is_answered_and_nothing_leaks() {
    let (world, counts) = script(None);
    world.assert_empty();
    let mut tried = 0;
    let of_the_start = [Call::NewPoll, Call::Spawn, Call::Poll];
    for (call, count) in Call::ALL.into_iter().zip(counts).filter(|(call, _)| !of_the_start.contains(call)) {
        for errno in [errno::ENOMEM, errno::ECONNREFUSED, errno::EINTR, errno::EAGAIN, errno::EPERM] {
            for nth in 1..=count {
                let (world, _) = script(Some(Fail { call: Some(call), nth, errno }));
                world.assert_empty();
                assert_eq!(world.net().descriptors(), 0);
                tried += 1;
            }
        }
    }
    assert!(tried > 40, "only {tried} failures tried");
}

/// Dials and peers that come, over a network that loses and refuses datagrams, with sockets whose calls fail.
fn at_random(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let faults = Faults::swarm(&mut rng).with_datagrams(&mut rng);
    let limits = Limits::default().idle_timeout(ms(rng.between(20, 300))).max_age(ms(1_000));
    let (workers, listeners) = (rng.below(3) as usize, rng.below(2) as usize);
    let connections = rng.between(2, 40) as usize;
    let setup = Setup { seed, faults, workers, listeners, connections, ..setup(limits) };
    let mut world = World::new(setup, |probe| {
        probe.open = Box::new(|session, ()| Ok(session.send("hello")?));
    });
    let mut upstreams = Vec::new();
    for _ in 0..200 {
        let to = peer(rng.between(1, 20) as u16);
        match rng.below(6) {
            0 => {
                refuses(&world, to, if rng.chance(500) { errno::ECONNREFUSED } else { errno::ENETUNREACH }, 3)
            }
            1 => world.net().answer(&Addr::Ip(to), Answer::Accept, 0),
            2 => {
                let plan = Reconnect::exponential(ms(5), ms(50)).attempts(rng.below(5) as u32);
                upstreams.push(world.dial(Dial::to_udp([to, peer(1)]).reconnect(plan)));
            }
            3 => upstreams.push(world.dial(Dial::to_udp(to))),
            4 if listeners > 0 => world.throw(to, &[b"unasked"]),
            _ => {
                let sockets = world.net().sockets_to(to);
                sockets.iter().for_each(|socket| world.net().throw(&[*socket], to, b"reply"));
            }
        }
        if let Some(upstream) = upstreams.get(rng.below(upstreams.len().max(1) as u64) as usize) {
            if rng.chance(50) {
                upstream.close();
            } else {
                let _ = upstream.send("more");
            }
        }
        world.run_for(rng.below(8));
        world.log.assert_balanced(false);
        assert!(world.metrics().sessions <= connections as u64);
    }
    upstreams.iter().for_each(Upstream::close);
    world.run_for(3_000);
    world.assert_empty();
    let metrics = world.metrics();
    assert_eq!(metrics.opened, metrics.closed_total(), "{metrics:?}");
    assert!(upstreams.iter().all(|upstream| upstream.state() == UpstreamState::Closed));
    world.shut_down(ms(100));
    world.run_to_rest();
    world.assert_gone();
    world.net().trace
}

#[test]
fn the_books_balance_whatever_the_network_does() {
    for seed in 0..60 {
        at_random(seed);
    }
    assert_eq!(at_random(7), at_random(7));
}

#[test]
fn what_a_callback_dials_lives_on_its_thread() {
    let mut world = World::new(Setup { workers: 2, ..setup(Limits::default()) }, |probe| {
        probe.open = Box::new(|session, ()| {
            if let (Origin::Accepted { .. }, Addr::Ip(from)) = (session.origin(), session.peer_addr()) {
                session.connect(Dial::to_udp(peer(from.port() + 100)))?;
            }
            Ok(())
        });
    });
    (1..=4).for_each(|number| world.throw(peer(number), &[b"x"]));
    world.run_for(5);
    let opened = world.log.lines().into_iter().filter(|(_, _, told)| *told == Callback::Open);
    let mut shards: Vec<ShardId> = opened.map(|(_, id, _)| id.shard()).collect();
    shards.sort_unstable();
    assert_eq!(shards, [1, 1, 1, 1, 2, 2, 2, 2].map(ShardId::new));
    world.abort();
    end(world);
}

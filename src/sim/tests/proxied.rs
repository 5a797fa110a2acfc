//! Connections through a proxy: whom they count for, and what is said of them.

use std::net::SocketAddr;

use crate::{
    error::{CloseKind, RefusalCause},
    events::Events,
    layer::{LayerFactories, ProxyHeader, ProxyProtocol, Untrusted},
    limits::Limits,
    sim::{Callback, Conn, Heard, Probe, Setup, World, frame},
};

use super::layers::{finish, hear_to_end, say};

/// Trusts all peers of the simulation.
fn trusting() -> ProxyProtocol {
    ProxyProtocol::trusting(["0.0.0.0/0", "::/0", "unix:"]).expect("these are networks")
}

fn behind(protocol: ProxyProtocol, limits: Limits, change: impl Fn(&mut Probe)) -> World {
    let mut layers = LayerFactories::default();
    layers.take_headers(protocol);
    World::new(Setup { limits, layers, ..Setup::default() }, change)
}

fn client(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 4711).into()
}

fn line(from: SocketAddr) -> Vec<u8> {
    format!("PROXY TCP4 {} 10.0.0.1 {} 443\r\n", from.ip(), from.port()).into_bytes()
}

fn connect_from(world: &mut World, from: SocketAddr) -> Conn {
    let conn = world.connect();
    say(world, conn, &line(from));
    world.run_for(5);
    conn
}

#[test]
fn the_session_is_the_clients_and_its_first_packet_may_come_with_the_header() {
    for cut in 0..=line(client(7)).len() {
        let mut world = behind(trusting(), Limits::default(), |probe| {
            probe.open = Box::new(|session, ()| {
                let to = session.proxied().and_then(ProxyHeader::destination).map(ToString::to_string);
                assert_eq!(to.as_deref(), Some("10.0.0.1:443"));
                Ok(session.send(session.peer_addr().to_string())?)
            });
        });
        let conn = world.connect();
        let wire = [line(client(7)), frame(b"at once")].concat();
        let (first, rest) = wire.split_at(cut);
        say(&world, conn, first);
        world.run_for(5);
        assert_eq!(world.log.count(&Callback::Open) > 0, cut == line(client(7)).len());
        say(&world, conn, rest);
        world.run_for(5);
        let heard = world.net().hear_all(conn);
        assert_eq!(heard, [frame(b"192.0.2.7:4711"), frame(b"at once")].concat(), "{cut}");
        finish(world, conn);
    }
}

#[test]
fn clients_have_as_many_connections_as_they_may_and_their_proxy_any_number() {
    let mut world = behind(trusting(), Limits::default().connections_per_peer(2), |_| ());
    let events = Events::new(10, vec![world.registry.hub().clone()]);
    let mut conns: Vec<Conn> = Vec::new();
    for number in [1, 2, 3, 1, 2, 3] {
        conns.push(connect_from(&mut world, client(number)));
    }
    assert_eq!((world.metrics().opened, world.metrics().refused_total()), (6, 0));

    let third = connect_from(&mut world, client(1));
    assert!(matches!(world.hears(third), Heard::Reset));
    assert_eq!((world.metrics().refused(RefusalCause::PeerLimit), world.metrics().refused_total()), (1, 1));
    let told: Vec<_> = events.try_iter().map(|event| event.to_string()).collect();
    let says = |told: &str| told.contains("192.0.2.1:4711 was refused: peer_limit: ");
    assert!(matches!(&told[..], [one] if says(one)), "{told:?}");

    world.net().leave(conns.remove(0));
    world.run_for(10);
    let next = connect_from(&mut world, client(1));
    assert_eq!(world.metrics().opened, 7);
    conns.push(next);
    conns.into_iter().for_each(|conn| world.net().leave(conn));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_first_packet_of_a_refused_client_reaches_no_handler() {
    let mut world = behind(trusting(), Limits::default().connections_per_peer(1), |_| ());
    let conn = connect_from(&mut world, client(1));
    let second = world.connect();
    say(&world, second, &[line(client(1)), frame(b"let me in")].concat());
    world.run_for(5);
    assert!(matches!(world.hears(second), Heard::Reset));
    assert_eq!(world.log.count(&Callback::Open), 1);
    assert_eq!(world.metrics().packets_in, 0);
    finish(world, conn);
}

#[test]
fn a_health_check_keeps_the_address_of_the_proxy_and_counts_for_no_peer() {
    let mut world = behind(trusting(), Limits::default().connections_per_peer(1), |probe| {
        probe.open = Box::new(|session, ()| {
            assert!(session.proxied().is_some_and(|header| header.source().is_none()));
            Ok(session.send(session.peer_addr().ip().map(|ip| ip.to_string()).unwrap_or_default())?)
        });
    });
    let mut heard = Vec::new();
    let conns: Vec<Conn> = [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"]
        .into_iter()
        .map(|header| {
            let conn = world.connect();
            say(&world, conn, header);
            world.run_for(5);
            heard.push(world.net().hear_all(conn));
            conn
        })
        .collect();
    assert_eq!(world.metrics().opened, 2);
    assert!(!heard[0].is_empty() && heard[0] == heard[1] && !heard[0].ends_with(b"192.0.2.1"), "{heard:?}");
    conns.into_iter().for_each(|conn| world.net().leave(conn));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_header_that_does_not_come_is_waited_for_no_longer_than_a_handshake() {
    for said in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"] {
        let limits = Limits::default().handshake_timeout(std::time::Duration::from_secs(3));
        let mut world = behind(trusting(), limits, |_| ());
        let conn = world.connect();
        say(&world, conn, said);
        world.run_until(2_990);
        assert_eq!(world.metrics().sessions, 1);
        world.run_until(3_010);
        assert_eq!(world.metrics().refused(RefusalCause::Handshake), 1);
        assert!(hear_to_end(&mut world, conn).is_some());
        finish(world, conn);
    }
}

#[test]
fn a_peer_that_is_no_trusted_proxy_is_refused_or_served_as_it_is() {
    let nobody = || ProxyProtocol::trusting(["192.0.2.0/24"]).expect("this is a network");
    let mut world = behind(nobody(), Limits::default(), |_| ());
    let events = Events::new(10, vec![world.registry.hub().clone()]);
    let conn = world.connect();
    assert_eq!(hear_to_end(&mut world, conn), Some(Vec::new()));
    assert_eq!((world.metrics().refused(RefusalCause::Handshake), world.metrics().opened), (1, 0));
    let told: Vec<_> = events.try_iter().map(|event| event.to_string()).collect();
    assert!(matches!(&told[..], [one] if one.contains("is no trusted proxy")), "{told:?}");
    finish(world, conn);

    let mut world = behind(nobody().untrusted(Untrusted::Direct), Limits::default(), |probe| {
        probe.open = Box::new(|session, ()| {
            assert!(session.proxied().is_none());
            Ok(())
        });
    });
    let conn = world.connect();
    say(&world, conn, &frame(b"hello"));
    world.run_for(5);
    assert_eq!(world.net().hear_all(conn), frame(b"hello"));
    finish(world, conn);
}

#[test]
fn a_client_that_is_known_later_still_counts() {
    let mut world = World::new(
        Setup { limits: Limits::default().connections_per_peer(2), ..Setup::default() },
        |probe| {
            let trusting = trusting();
            probe.packet = Box::new(move |session, packet| {
                if packet == b"from" {
                    session.push_layer(trusting.receiver_from(session.peer_addr()));
                    return Ok(());
                }
                Ok(session.send(session.peer_addr().to_string())?)
            });
        },
    );
    let mut conns = Vec::new();
    for (number, heard) in [(1, true), (1, true), (1, false), (2, true)] {
        let conn = world.connect();
        say(&world, conn, &[frame(b"from"), line(client(number)), frame(b"who?")].concat());
        world.run_for(5);
        if heard {
            let due = frame(client(number).to_string().as_bytes());
            assert_eq!(world.net().hear_all(conn), due);
            conns.push(conn);
        } else {
            assert!(matches!(world.hears(conn), Heard::Reset));
        }
    }
    let closes: Vec<CloseKind> = world.log.closes().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(closes, [CloseKind::Layer]);
    conns.into_iter().for_each(|conn| world.net().leave(conn));
    world.run_to_rest();
    world.assert_empty();
}

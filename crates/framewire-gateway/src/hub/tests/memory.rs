//! What the hub and the registry hold for links and connections, from the sizes of their tables.

use super::*;
use crate::ids::{self, IdMap};

/// The most user memory for an idle virtual connection, in bytes.
const FOR_A_CONNECTION: usize = 200;
/// The most for an idle client, in bytes, beside its session.
const FOR_A_CLIENT: usize = 300;
/// What is left of tables that are empty, in bytes.
const LEFT: usize = 64 * 1024;

/// A place in a slab.
#[expect(dead_code, reason = "only its size counts")]
enum Place<T> {
    Vacant(usize),
    Used(T),
}

/// The bytes that are held for clients, and those for connections.
fn memory(world: &World) -> (usize, usize) {
    let (mut clients, mut connections) = world.shared.registry.memory();
    for hub in &world.hubs {
        clients += hub.links.capacity() * size_of::<Place<Link>>();
        connections += hub.ends.capacity() * size_of::<Place<End>>() + ids::memory(&hub.conns);
        assert!(hub.links.iter().all(|(_, link)| link.queue.is_none()), "nothing waits");
        let clients = hub.links.iter().filter(|(_, link)| link.side == Side::Client);
        assert!(clients.into_iter().all(|(_, link)| link.ids.is_none()), "no ID is left");
    }
    (clients, connections)
}

#[test]
fn an_idle_virtual_connection_holds_at_most_200_bytes_however_many_there_are() {
    const CLIENTS: usize = 1_000;
    const EACH: usize = 16;
    for threads in [1, 2] {
        let mut world = World::new(threads, GatewayLimits::default());
        let servers = [0, 1, 2].map(|id| world.server(id as usize % threads, id));
        let mut clients = Vec::new();
        let mut open = 0;
        for number in 0..CLIENTS {
            let client = world.client(number / 2 % threads);
            clients.push(client);
            for each in 0..EACH {
                world.open(client, servers[each % 3]);
                open += 1;
                if open >= CLIENTS {
                    let (_, held) = memory(&world);
                    assert!(held <= FOR_A_CONNECTION * open, "{held} bytes for {open}, {threads} threads");
                }
            }
            let (held, _) = memory(&world);
            let most = FOR_A_CLIENT * clients.len().max(100);
            assert!(held <= most, "{held} bytes for {} clients, {threads} threads", clients.len());
        }
        world.audit();
        clients.into_iter().chain(servers).for_each(|link| world.leave(link));
        let (clients, connections) = memory(&world);
        assert!(clients + connections <= LEFT, "{clients} and {connections} bytes are left");
    }
}

#[test]
fn a_burst_leaves_little_behind_at_a_link_that_stays() {
    let mut world = World::new(1, GatewayLimits::default());
    let (client, server) = (world.client(0), world.server(0, 7));
    let conn = world.open(client, server);
    for _ in 0..1_000 {
        world.say(client, conn, &[1; 100]).unwrap();
        world.say(server, conn, &[1; 100]).unwrap();
    }
    assert_eq!((world.received(client).len(), world.received(server).len()), (1_000, 1_000));
    let hub = &world.hubs[0];
    assert!(hub.links.iter().all(|(_, link)| link.queue.is_none()), "empty queues are given back");
}

#[test]
fn the_memory_of_a_map_is_that_of_its_buckets() {
    let mut map = IdMap::<u32>::default();
    assert_eq!(ids::memory(&map), 0);
    map.extend((0..100).map(|id| (id, 0)));
    assert_eq!(ids::memory(&map), 128 * 9 + 16);
}

//! A turn is bounded in packets and in time: whatever the sessions do, every session is served again soon.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    TimerId,
    contained::Contained,
    limits::Limits,
    shard::{Command, Job},
    sim::{Call, Callback, Conn, Probe, Setup, World, frame},
    time::Tick,
};

/// The longest that a turn may take, but for the callback that runs when its time is up.
const TURN: Tick = 20;

/// An echo in which a millisecond passes with every so many packets.
fn echo(probe: &mut Probe, packets_per_ms: usize) {
    let (block, packets) = (probe.block(), AtomicUsize::new(0));
    probe.quiet = true;
    probe.packet = Box::new(move |session, packet| {
        if packets.fetch_add(1, Relaxed) % packets_per_ms == packets_per_ms - 1 {
            block(1);
        }
        Ok(session.send(packet)?)
    });
}

/// Each session has a timer that fires every 50 ms.
fn ring_every_50_ms(probe: &mut Probe) {
    let set = |session: &mut crate::Session<'_>| session.set_timer(TimerId(1), Duration::from_millis(50));
    probe.open = Box::new(move |session, ()| Ok(set(session)?));
    probe.timer = Box::new(move |session, _| Ok(set(session)?));
}

/// Refills with empty packets each client whose bytes were read in part.
fn flood(world: &World, conns: &[Conn], wire: &[u8]) {
    for conn in conns {
        world.net().hear_all(*conn);
        if world.net().unread(*conn) < wire.len() / 2 {
            world.net().say(*conn, wire);
        }
    }
}

fn flood_setup() -> Setup {
    let mut setup = Setup { limits: Limits::default().read_budget(256 * 1024), ..Setup::default() };
    (setup.sizes.up, setup.sizes.down) = (128 * 1024, 1 << 20);
    setup
}

/// The most that any session's timer was late, and how many sessions have one that fired.
fn lateness(world: &World) -> (Tick, usize) {
    let (mut last, mut most) = (HashMap::new(), 0);
    for (at, session, told) in world.log.lines() {
        if let Callback::Open | Callback::Timer(1) = told {
            let before = last.insert(session, at);
            most = most.max(before.map_or(0, |before| (at - before).saturating_sub(50)));
        }
    }
    let now = world.now();
    (most.max(last.values().map(|at| (now - at).saturating_sub(50)).max().unwrap_or(0)), last.len())
}

#[test]
fn timers_are_in_time_on_a_shard_whose_every_poll_is_full() {
    for (clients, batch) in [(600, 256), (300, 3)] {
        let mut setup = Setup::default();
        setup.sizes.batch = batch;
        let mut world = World::new(setup, |probe| {
            echo(probe, 20);
            ring_every_50_ms(probe);
        });
        let conns: Vec<_> = (0..clients).map(|_| world.connect()).collect();
        world.run_for(1);
        conns.iter().for_each(|conn| assert!(world.net().say(*conn, &frame(b"first")) > 0));
        while world.now() < 2_000 {
            world.turn();
            // In lock step: the next packet follows the reply to the last.
            for conn in &conns {
                if !world.net().hear_all(*conn).is_empty() {
                    world.net().say(*conn, &frame(b"again"));
                }
            }
        }
        let (late, sessions) = lateness(&world);
        assert!(late <= 100, "{late} ms late with {clients} clients");
        assert_eq!(sessions, clients, "every session's timer has rung");
    }
}

#[test]
fn a_session_is_handed_no_more_than_its_share_of_packets_in_a_turn() {
    for share in [64, 1, 33, 1_000] {
        let handed = Arc::<AtomicUsize>::default();
        let mut setup = flood_setup();
        if share != 64 {
            setup.limits = setup.limits.packet_budget(share);
        }
        let mut world = World::new(setup, |probe| {
            let handed = handed.clone();
            probe.quiet = true;
            probe.packet = Box::new(move |_, _| {
                handed.fetch_add(1, Relaxed);
                Ok(())
            });
        });
        let conn = world.connect();
        world.run_for(1);
        let packets = 100 * share;
        let wire = frame(b"").repeat(packets);
        assert_eq!(world.net().say(conn, &wire[..wire.len().min(100_000)]), wire.len().min(100_000));
        let (mut turns, mut said) = (0, wire.len().min(100_000));
        while handed.load(Relaxed) < packets {
            let before = handed.load(Relaxed);
            // It also has an event: it is not served for that and once more for what was left over.
            said += world.net().say(conn, &wire[said..]);
            if said == wire.len() {
                world.net().say(conn, &frame(b"x")[..1]);
                world.net().say(conn, &frame(b"x")[1..]);
            }
            world.turn();
            let in_turn = handed.load(Relaxed) - before;
            assert!(in_turn <= share, "{in_turn} packets in one turn");
            turns += 1;
        }
        assert!(turns < 250, "{turns} turns");
    }
}

#[test]
fn replies_to_packets_that_wait_for_their_turn_are_written_together() {
    let mut world = World::new(flood_setup(), |probe| probe.quiet = true);
    let conn = world.connect();
    world.run_for(1);
    for packets in [64, 65, 1_000, 10_000, 100_000] {
        let wire = frame(b"").repeat(packets);
        let (mut said, mut heard) = (0, 0);
        let sends = world.net().calls.of(Call::Send);
        while heard < wire.len() {
            said += world.net().say(conn, &wire[said..]);
            world.turn();
            heard += world.net().hear_all(conn).len();
        }
        let sends = world.net().calls.of(Call::Send) - sends;
        let reads = wire.len().div_ceil(64 * 1024) as u64;
        assert!(sends <= 2 * reads + 1, "{sends} writes for {packets} packets");
    }
    world.net().end(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_peer_that_reads_again_is_written_to_while_its_packets_wait_for_their_turn() {
    let mut setup = flood_setup();
    setup.limits = Limits::default().stall_timeout(Duration::from_secs(2));
    setup.sizes.down = 50;
    let mut world = World::new(setup, |probe| {
        let block = probe.block();
        probe.quiet = true;
        probe.packet = Box::new(move |session, packet| {
            if packet.is_empty() {
                block(1);
                return Ok(());
            }
            Ok(session.send([7; 96])?)
        });
    });
    let conn = world.connect();
    world.run_for(1);
    world.net().say(conn, &frame(b"give me"));
    world.turn();
    world.net().say(conn, &frame(b"").repeat(5_000));
    world.net().at(1_000, move |net| {
        net.hear_all(conn);
    });
    world.run_for(4_000);
    assert_eq!(world.log.closes(), [], "it has taken bytes within the time");
    assert_eq!(world.net().hear_all(conn).len(), 50);
}

#[test]
fn a_flood_of_packets_that_ends_its_stream_is_handed_out_whole() {
    let handed = Arc::<AtomicUsize>::default();
    let mut world = World::new(flood_setup(), |probe| {
        let handed = handed.clone();
        probe.quiet = true;
        probe.packet = Box::new(move |session, packet| {
            handed.fetch_add(1, Relaxed);
            Ok(session.send(packet)?)
        });
    });
    for packets in [63, 64, 65, 128, 5_000] {
        let conn = world.connect();
        world.net().say(conn, &frame(b"").repeat(packets));
        world.net().end(conn);
        let before = handed.load(Relaxed);
        world.run_to_rest();
        assert_eq!(handed.load(Relaxed) - before, packets);
        assert_eq!(world.net().hear_all(conn).len(), 4 * packets);
    }
    world.assert_empty();
}

#[test]
fn everybody_is_served_beside_clients_that_send_nothing_but_empty_packets() {
    for hoses in [2, 20, 100] {
        let mut world = World::new(flood_setup(), |probe| {
            echo(probe, 50);
            ring_every_50_ms(probe);
        });
        let hoses: Vec<_> = (0..hoses).map(|_| world.connect()).collect();
        let bystander = world.connect();
        world.run_for(1);
        let (wire, ping) = (frame(b"").repeat(1_000), frame(b"ping"));
        let mut asked = world.now();
        world.net().say(bystander, &ping);
        let (mut worst, mut answers) = (0, 0);
        while world.now() < 1_000 {
            flood(&world, &hoses, &wire);
            let began = world.now();
            world.turn();
            assert!(world.now() - began <= TURN, "a turn of {} ms", world.now() - began);
            if world.net().hear_all(bystander) == ping {
                worst = worst.max(world.now() - asked);
                answers += 1;
                asked = world.now();
                world.net().say(bystander, &ping);
            }
        }
        assert!(worst <= 20 && answers > 20, "{answers} answers, the slowest after {worst} ms");
        let (late, sessions) = lateness(&world);
        assert!(late <= 100, "a timer was {late} ms late");
        assert_eq!(sessions, hoses.len() + 1);
    }
}

#[test]
fn a_turn_is_over_in_time_however_slow_the_callbacks_are() {
    for (packets_per_ms, callback) in [(1, 1), (1_000, 0)] {
        let mut world = World::new(flood_setup(), |probe| echo(probe, packets_per_ms));
        let hoses: Vec<_> = (0..50).map(|_| world.connect()).collect();
        world.run_for(1);
        let wire = frame(b"").repeat(500);
        let ran = Arc::<AtomicUsize>::default();
        for turn in 0..100 {
            flood(&world, &hoses, &wire);
            let known = world.connect();
            let job = ran.clone();
            world.post(
                0,
                Command::Execute(Contained::new(Job::Plain(Box::new(move |_| {
                    job.fetch_add(1, Relaxed);
                })))),
            );
            let (began, accepted) = (world.now(), world.metrics().accepted);
            world.turn();
            let took = world.now() - began;
            // Until the callbacks are known to be slow, a few of them run between two looks at the clock.
            assert!(took <= TURN + callback || turn < 3 && took <= 64, "turn {turn} took {took} ms");
            assert_eq!(ran.load(Relaxed), turn + 1, "the mailbox is served in every turn");
            assert!(world.metrics().accepted > accepted, "so is the listener");
            world.net().leave(known);
        }
    }
}

#[test]
fn a_shutdown_is_in_time_beside_clients_that_never_stop() {
    let mut world = World::new(flood_setup(), |probe| echo(probe, 50));
    let hoses: Vec<_> = (0..100).map(|_| world.connect()).collect();
    world.run_for(1);
    let wire = frame(b"").repeat(1_000);
    for _ in 0..20 {
        flood(&world, &hoses, &wire);
        world.turn();
    }
    world.shut_down(Duration::from_millis(500));
    let asked = world.now();
    while !world.has_stopped() {
        flood(&world, &hoses, &wire);
        world.turn();
        if world.now() == asked {
            world.net().pass(1);
        }
        assert!(world.now() <= asked + 600, "still there after {} ms", world.now() - asked);
    }
    world.assert_empty();
}

#[test]
fn no_peer_is_judged_by_the_time_in_which_its_packets_wait_for_their_turn() {
    let timeout = Duration::from_millis(100);
    let limits = [Limits::default().packet_timeout(timeout), Limits::default().idle_timeout(timeout)];
    for limits in limits {
        let mut setup = flood_setup();
        setup.limits = limits;
        let mut world = World::new(setup, |probe| {
            echo(probe, 1);
            probe.quiet = false;
        });
        let conns: Vec<_> = (0..100).map(|_| world.connect()).collect();
        world.run_for(1);
        let wire = frame(b"").repeat(50);
        for part in [&wire[..2], &wire[2..]] {
            conns.iter().for_each(|conn| assert_eq!(world.net().say(*conn, part), part.len()));
            world.turn();
        }
        while world.metrics().packets_in < 5_000 && world.metrics().closed_total() == 0 {
            world.turn();
        }
        let mut waiting: HashMap<_, usize> = HashMap::new();
        for (at, session, told) in world.log.lines() {
            match told {
                Callback::Packet(_) => *waiting.entry(session).or_insert(50) -= 1,
                Callback::Closing(kind) => assert_eq!(waiting[&session], 0, "{session}: {kind:?} at {at} ms"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_loop_that_has_read_much_at_once_wakes_up_once_to_give_memory_back_and_then_rests() {
    let mut world = World::new(flood_setup(), |probe| echo(probe, 1_000));
    let conn = world.connect();
    for (at, len, wake_ups) in [(100, 100, 0), (200_000, 20_000, 1), (400_000, 100, 0)] {
        world.run_until(at);
        world.net().say(conn, &frame(&vec![1; len]));
        world.run_for(500);
        assert_eq!(world.net().hear_all(conn).len(), frame(&vec![1; len]).len());
        world.run_for(100);
        let turns = world.metrics().turns;
        world.run_for(100_000);
        // The last turn is that at the end of the run.
        assert_eq!(world.metrics().turns - turns, wake_ups + 1, "after {len} bytes");
    }
}

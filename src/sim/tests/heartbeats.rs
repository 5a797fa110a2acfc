//! When beats are sent, and when a peer is given up, to the millisecond of virtual time.

use std::time::Duration;

use crate::{
    Heartbeat, Session, TimerId,
    error::{CloseKind, CloseReason},
    handler::Then,
    limits::Limits,
    sim::{Callback, Conn, Heard, Probe, Setup, World, frame},
};

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn beat(period: u64) -> Heartbeat {
    Heartbeat::every(ms(period), "beat").expect("the period is possible")
}

/// Sessions do this as they open, and say nothing by themselves.
pub(super) fn opening(limits: Limits, open: impl Fn(&mut Session<'_>) + Clone + Send + 'static) -> World {
    opening_with(Setup { limits, ..Setup::default() }, open, |_| ())
}

pub(super) fn opening_with(
    setup: Setup,
    open: impl Fn(&mut Session<'_>) + Clone + Send + 'static,
    change: impl Fn(&mut Probe),
) -> World {
    World::new(setup, |probe| {
        let open = open.clone();
        probe.open = Box::new(move |session, ()| {
            open(session);
            Ok(())
        });
        probe.packet = Box::new(|_, _| Ok(()));
        change(probe);
    })
}

/// When the client hears a beat, up to that time, and what else it heard.
fn hear_beats(world: &mut World, conn: Conn, until: u64) -> Vec<u64> {
    let (mut times, mut heard) = (Vec::new(), Vec::new());
    while world.now() < until {
        world.run_for(1);
        heard.extend(world.net().hear_all(conn));
        while let Some(rest) = heard.strip_prefix(&frame(b"beat")[..]) {
            heard = rest.to_vec();
            times.push(world.now());
        }
    }
    assert_eq!(heard, b"", "and nothing else");
    times
}

pub(super) fn answer_at(world: &World, conn: Conn, times: &[u64]) {
    for at in times {
        world.net().at(*at, move |net| {
            net.say(conn, &frame(b"here"));
        });
    }
}

pub(super) fn only_close(world: &World) -> (u64, CloseKind) {
    let closings: Vec<_> = world.log.lines();
    let closings: Vec<_> = closings
        .iter()
        .filter_map(|(at, _, told)| match told {
            Callback::Closing(kind) => Some((*at, *kind)),
            _ => None,
        })
        .collect();
    assert_eq!(closings.len(), 1, "{closings:?}");
    closings[0]
}

#[test]
fn a_beat_is_sent_every_period_whatever_else_is_sent_and_received() {
    let mut world = opening_with(
        Setup::default(),
        |session| session.set_heartbeat(beat(700)),
        |probe| {
            probe.packet = Box::new(|session, _| Ok(session.send("beat")?));
        },
    );
    let conn = world.connect();
    answer_at(&world, conn, &[99, 1_299, 1_499]);
    assert_eq!(hear_beats(&mut world, conn, 3_000), [100, 700, 1_300, 1_400, 1_500, 2_100, 2_800]);
    assert_eq!(world.metrics().timers, 1, "one alarm");
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_heartbeat_is_changed_and_stopped_while_it_runs() {
    let mut world = opening_with(
        Setup::default(),
        |session| session.set_heartbeat(beat(1_000)),
        |probe| {
            probe.packet = Box::new(|session, packet| {
                let period: u64 = std::str::from_utf8(packet)?.parse()?;
                session.set_heartbeat((period > 0).then(|| beat(period)));
                Ok(())
            });
        },
    );
    let conn = world.connect();
    for (at, period) in [(1_500, "300"), (2_150, "2000"), (4_149, "2000"), (6_149, "10"), (6_175, "0")] {
        world.net().at(at, move |net| {
            net.say(conn, &frame(period.as_bytes()));
        });
    }
    let expected = [1_000, 1_800, 2_100, 6_149, 6_159, 6_169];
    assert_eq!(hear_beats(&mut world, conn, 20_000), expected);
    assert_eq!(world.metrics().timers, 0, "stopped: nothing is left in the wheel");
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_peer_that_answers_no_beat_is_given_up_when_the_next_one_is_due() {
    let mut world = opening(Limits::default(), |session| session.set_heartbeat(beat(1_000).lost_after(3)));
    let [silent, talks] = [(); 2].map(|()| world.connect());
    // Any byte is an answer, even a part of a frame, and none to a beat.
    answer_at(&world, talks, &[3_999]);
    world.net().at(6_998, move |net| {
        net.say(talks, b"\0");
    });
    assert_eq!(hear_beats(&mut world, silent, 4_100), [1_000, 2_000, 3_000]);
    assert_eq!(only_close(&world), (4_000, CloseKind::HeartbeatLost));
    assert_eq!(world.hears(silent), Heard::End);
    world.run_to_rest();
    let closes = world.log.closes();
    assert_eq!(closes, [(6_000, CloseKind::HeartbeatLost), (12_000, CloseKind::HeartbeatLost)]);
    world.assert_empty();
}

#[test]
fn the_reason_tells_how_many_beats_had_no_answer_and_for_how_long() {
    let reason = CloseReason::HeartbeatLost { beats: 3, silence: ms(4_000) };
    assert_eq!(reason.to_string(), "no answer to 3 heartbeats, nothing received for 4s");
    assert_eq!(CloseReason::MaxAge(ms(60_000)).to_string(), "open for 60s, the maximum age");
}

#[test]
fn a_beat_that_was_sent_is_no_sign_of_the_peers_life() {
    let mut world = opening(Limits::default().idle_timeout(ms(2_500)), |session| {
        session.set_heartbeat(beat(1_000));
    });
    let conn = world.connect();
    assert_eq!(hear_beats(&mut world, conn, 2_600), [1_000, 2_000]);
    assert_eq!(only_close(&world), (2_500, CloseKind::Idle));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_blocked_session_skips_beats_and_is_ended_by_the_stall_timeout() {
    let mut setup = Setup {
        limits: Limits::default().stall_timeout(ms(5_000)).outbox_high(1_000).outbox_low(500),
        ..Setup::default()
    };
    setup.sizes.down = 1_000;
    let mut world = opening_with(
        setup,
        |session| session.set_heartbeat(beat(10).lost_after(3)),
        |probe| probe.packet = Box::new(|session, _| Ok(session.send([7; 1_500])?)),
    );
    let conn = world.connect();
    world.net().say(conn, &frame(b"give me more than the network holds"));
    world.run_until(4_999);
    let metrics = world.metrics();
    assert_eq!((metrics.packets_out, metrics.sessions), (1, 1), "no beat was queued");
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(5_000, CloseKind::Stalled)]);
    world.assert_empty();
}

#[test]
fn beats_go_on_when_a_blocked_peer_reads_again_and_the_skipped_ones_do_not_count() {
    let mut setup = Setup::default();
    setup.sizes.down = 1_000;
    let mut world = opening_with(
        setup,
        |session| session.set_heartbeat(beat(100).lost_after(2)),
        |probe| probe.packet = Box::new(|session, _| Ok(session.send([7; 1_500])?)),
    );
    let conn = world.connect();
    world.net().say(conn, &frame(b"go"));
    world.run_until(1_050);
    assert_eq!(world.expect(conn, 1_504).len(), 1_504);
    assert_eq!(hear_beats(&mut world, conn, 1_250), [1_100, 1_200]);
    world.run_until(1_350);
    assert_eq!(only_close(&world), (1_300, CloseKind::HeartbeatLost));
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_peer_is_not_given_up_for_beats_while_other_packets_wait_for_it_to_read() {
    let mut setup = Setup { limits: Limits::default().stall_timeout(ms(5_000)), ..Setup::default() };
    setup.sizes.down = 1_000;
    let mut world = opening_with(
        setup,
        |session| {
            session.set_heartbeat(beat(100).lost_after(2));
            assert_eq!(session.set_timer(TimerId(1), ms(250)), Ok(()));
        },
        |probe| probe.timer = Box::new(|session, _| Ok(session.send([7; 1_500])?)),
    );
    world.connect();
    world.run_to_rest();
    assert_eq!(world.log.closes(), [(5_250, CloseKind::Stalled)], "as for any peer that does not read");
    world.assert_empty();
}

#[test]
fn a_paused_session_beats_and_blames_nobody_for_its_own_deafness() {
    let mut world = opening_with(
        Setup::default(),
        |session| {
            session.set_heartbeat(beat(100).lost_after(2));
            session.pause();
            assert_eq!(session.set_timer(TimerId(1), ms(1_050)), Ok(()));
        },
        |probe| {
            probe.timer = Box::new(|session, _| {
                session.resume();
                Ok(())
            });
        },
    );
    let conn = world.connect();
    let heard = hear_beats(&mut world, conn, 1_350);
    assert_eq!(heard, (1..=12).map(|beat| beat * 100).collect::<Vec<_>>());
    assert_eq!(only_close(&world), (1_300, CloseKind::HeartbeatLost), "counted from the end of the pause");
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn beats_go_on_after_the_peers_end_and_its_silence_is_no_loss() {
    let mut world = opening_with(
        Setup::default(),
        |session| {
            session.set_heartbeat(beat(100).lost_after(1));
            assert_eq!(session.set_timer(TimerId(1), ms(450)), Ok(()));
        },
        |probe| {
            probe.end = Box::new(|_, ()| Ok(Then::Stay));
            probe.timer = Box::new(|session, _| {
                session.close();
                Ok(())
            });
        },
    );
    let conn = world.connect();
    world.net().at(50, move |net| net.end(conn));
    assert_eq!(hear_beats(&mut world, conn, 1_000), [100, 200, 300, 400]);
    assert_eq!(only_close(&world), (450, CloseKind::Local));
    assert_eq!(world.hears(conn), Heard::End);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_session_that_stays_in_a_shutdown_beats_and_one_that_closes_does_not() {
    let mut world = opening_with(
        Setup::default(),
        |session| session.set_heartbeat(beat(100)),
        |probe| {
            let mut first = true;
            probe.shutdown =
                Box::new(move |_, ()| Ok(if std::mem::take(&mut first) { Then::Stay } else { Then::Close }));
        },
    );
    let stays = world.connect();
    world.run_until(1);
    let closes = world.connect();
    world.run_until(50);
    world.shut_down(ms(1_000));
    assert_eq!(hear_beats(&mut world, stays, 450), [100, 200, 300, 400]);
    assert_eq!(world.hears(closes), Heard::End);
    world.run_to_rest();
    world.assert_gone();
}

#[test]
fn a_session_that_drains_sends_no_beat() {
    let mut setup = Setup::default();
    setup.sizes.down = 1_000;
    let mut world = opening_with(
        setup,
        |session| {
            session.set_heartbeat(beat(100));
            session.send([7; 3_000]).expect("there is room");
            session.close();
            session.set_heartbeat(beat(1));
        },
        |_| (),
    );
    let conn = world.connect();
    world.run_until(1_000);
    assert_eq!(world.expect(conn, 10_000).len(), 3_004);
    assert_eq!(world.metrics().packets_out, 1);
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_callback_that_blocks_does_not_blame_a_peer_that_has_answered() {
    let mut world = opening_with(
        Setup::default(),
        |session| session.set_heartbeat(beat(1_000).lost_after(1)),
        |probe| {
            let block = probe.block();
            probe.packet = Box::new(move |_, packet| {
                if packet == b"block" {
                    block(5_000);
                }
                Ok(())
            });
        },
    );
    let [blocks, answers] = [(); 2].map(|()| world.connect());
    world.net().at(1_300, move |net| {
        net.say(blocks, &frame(b"block"));
    });
    // Both during the callback, and read after it.
    answer_at(&world, answers, &[1_400]);
    world.run_until(6_400);
    assert_eq!(
        world.log.lines().iter().filter(|(_, _, told)| matches!(told, Callback::Closing(_))).count(),
        0
    );
    // The late beat at 6,300 moves the others; what was read at that time may answer it.
    world.run_until(8_400);
    assert_eq!(world.log.times(&Callback::Closing(CloseKind::HeartbeatLost)), [8_300, 8_300]);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_beat_is_written_before_another_sessions_timer_can_hold_it_up() {
    let mut world = opening_with(
        Setup::default(),
        |session| {
            session.set_heartbeat(beat(1_000).lost_after(1));
            assert_eq!(session.set_timer(TimerId(1), ms(1_000)), Ok(()));
        },
        |probe| {
            let block = probe.block();
            probe.timer = Box::new(move |_, _| {
                block(950);
                Ok(())
            });
        },
    );
    let conn = world.connect();
    // While the other callback blocks.
    world.net().at(1_500, move |net| {
        if net.hear_all(conn) == frame(b"beat") {
            net.say(conn, &frame(b"here"));
        }
    });
    world.run_until(2_100);
    assert_eq!(world.log.count(&Callback::Timer(1)), 1);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::HeartbeatLost)), 0);
}

#[test]
fn an_answer_that_came_while_another_sessions_callback_blocked_is_read_before_the_peer_is_given_up() {
    let mut world = opening_with(
        Setup::default(),
        |session| session.set_heartbeat(beat(1_000).lost_after(1)),
        |probe| {
            let block = probe.block();
            probe.packet = Box::new(move |session, packet| {
                if packet == b"block" {
                    block(150);
                    // Reads the clock, so that the beat is due in this turn.
                    session.set_timer(TimerId(1), ms(60_000))?;
                }
                Ok(())
            });
        },
    );
    let [blocks, answers] = [(); 2].map(|()| world.connect());
    world.net().at(1_950, move |net| {
        net.say(blocks, &frame(b"block"));
    });
    answer_at(&world, answers, &[1_990]);
    world.run_until(2_900);
    assert_eq!(world.log.count(&Callback::Packet(b"here".into())), 1);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::HeartbeatLost)), 0);
}

#[test]
fn a_process_that_stood_still_reads_before_it_gives_anybody_up() {
    let mut world = opening(Limits::default(), |session| session.set_heartbeat(beat(1_000).lost_after(2)));
    let conn = world.connect();
    world.run_until(2_500);
    answer_at(&world, conn, &[2_600]);
    world.net().pass(600_000);
    world.run_for(900);
    assert_eq!(world.log.count(&Callback::Closing(CloseKind::HeartbeatLost)), 0);
    assert_eq!(
        world.net().hear_all(conn),
        [frame(b"beat"), frame(b"beat"), frame(b"beat")].concat(),
        "no burst"
    );
    world.net().leave(conn);
    world.run_to_rest();
    world.assert_empty();
}

//! Heartbeats, idle timeouts and maximum ages of single sessions. When they come to the millisecond is for the
//! simulation; here they come at all.

use std::time::Duration;

use framewire::{CloseKind, Failure, Heartbeat, HeartbeatError, Limits, Session};

use crate::common::{On, Served, on_each_strategy_and_transport, until};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    beats_come_until_they_are_stopped
    a_peer_that_answers_no_beat_is_given_up
    a_peer_that_answers_beats_stays
    a_session_has_an_idle_timeout_of_its_own
    a_session_has_a_maximum_age_of_its_own
    a_session_ends_at_the_maximum_age_of_the_limits
    a_job_sets_the_heartbeat_of_a_session
}

fn beat(millis: u64) -> Result<Heartbeat, HeartbeatError> {
    Heartbeat::every(Duration::from_millis(millis), "beat")
}

/// Does what the packet says: "beat MILLIS [LOST_AFTER]", "stop", "idle MILLIS", "age MILLIS"; sends all others back.
fn obeying() -> Scripted<()> {
    Scripted::answering(|session: &mut Session<'_>, (), packet| {
        let text = std::str::from_utf8(packet)?;
        let number = |word: &str| word.parse::<u64>().map_err(Failure::from);
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["beat", millis] => session.set_heartbeat(beat(number(millis)?)?),
            ["beat", millis, beats] => {
                session.set_heartbeat(beat(number(millis)?)?.lost_after(beats.parse()?));
            }
            ["stop"] => {
                session.set_heartbeat(None);
                session.send("stopped")?;
            }
            ["idle", millis] => session.set_idle_timeout(Duration::from_millis(number(millis)?)),
            ["age", millis] => session.set_max_age(Duration::from_millis(number(millis)?)),
            _ => session.send(packet)?,
        }
        Ok(())
    })
}

fn beats_come_until_they_are_stopped(on: On) {
    let served = on.serve(Limits::default(), obeying());
    let mut client = served.connect();
    client.send("beat 5");
    (0..5).for_each(|_| assert_eq!(client.recv_text(), "beat"));
    client.send("beat 1");
    (0..20).for_each(|_| assert_eq!(client.recv_text(), "beat"));
    client.send("stop");
    while client.recv_text() != "stopped" {}
    until("no alarm is left", || served.metrics().timers == 0);
    client.assert_echo("and no beat comes before this");
    drop(client);
    served.finish();
}

fn a_peer_that_answers_no_beat_is_given_up(on: On) {
    let served = on.serve(Limits::default().linger_timeout(Duration::from_millis(50)), obeying());
    let (mut client, session) = served.connect_known();
    client.send("beat 20 3");
    (0..3).for_each(|_| assert_eq!(client.recv_text(), "beat"));
    client.assert_end();
    let (kind, text) = served.journal.await_ending(session.id());
    assert_eq!(kind, CloseKind::HeartbeatLost);
    assert!(text.starts_with("no answer to 3 heartbeats, nothing received for "), "{text}");
    drop(client);
    served.finish();
}

fn a_peer_that_answers_beats_stays(on: On) {
    let served = on.serve(Limits::default(), obeying());
    let mut client = served.connect();
    // Lost after half a minute of silence, so that a busy machine is not taken for one.
    client.send("beat 10 3000");
    for _ in 0..10 {
        assert_eq!(client.recv_text(), "beat");
        client.send("idle 60000");
    }
    client.send("stop");
    while client.recv_text() != "stopped" {}
    client.assert_echo("still served");
    drop(client);
    served.finish();
}

fn a_session_has_an_idle_timeout_of_its_own(on: On) {
    let served = on.serve(Limits::default().idle_timeout(Duration::from_secs(3_600)), obeying());
    let mut bystander = served.connect();
    bystander.assert_echo("here");
    let (mut client, session) = served.connect_known();
    client.send("idle 50");
    client.assert_end();
    drop(client);
    let ending = served.journal.await_ending(session.id());
    assert_eq!(ending, (CloseKind::Idle, "nothing received for 50ms".to_owned()));
    bystander.assert_echo("still here");
    drop(bystander);
    served.finish();
}

fn a_session_has_a_maximum_age_of_its_own(on: On) {
    let served = on.serve(Limits::default(), obeying());
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    client.send("age 1");
    client.assert_end();
    drop(client);
    let ending = served.journal.await_ending(session.id());
    assert_eq!(ending, (CloseKind::MaxAge, "open for 1ms, the maximum age".to_owned()));
    bystander.assert_echo("still here");
    drop(bystander);
    served.finish();
}

fn a_session_ends_at_the_maximum_age_of_the_limits(on: On) {
    let served = on.serve(Limits::default().max_age(Duration::from_millis(50)), obeying());
    let mut client = served.connect();
    client.assert_end();
    drop(client);
    until("it is counted", || served.journal.ended_by(CloseKind::MaxAge) == 1);
    served.finish();
}

fn a_job_sets_the_heartbeat_of_a_session(on: On) {
    let served: Served = on.serve(Limits::default(), obeying());
    let (mut client, session) = served.connect_known();
    let id = session.id();
    let every = beat(5).expect("the period is possible");
    let asked = served.running.execute(id.shard(), move |shard| {
        shard.with(id, |session, ()| session.set_heartbeat(every));
    });
    assert_eq!(asked, Ok(()));
    (0..3).for_each(|_| assert_eq!(client.recv_text(), "beat"));
    drop(client);
    served.finish();
}

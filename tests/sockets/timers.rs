//! Timers of sessions. What must come is waited for; what must not come is shown by what came after it.

use std::time::{Duration, Instant};

use framewire::{Failure, Limits, Session, TimerId, packet_fn};

use crate::common::{Client, On, frame, on_each_strategy_and_transport, until};
use crate::handlers::Scripted;

on_each_strategy_and_transport! {
    timers_ring_once_in_the_order_they_are_due
    a_timer_never_rings_early
    a_timer_that_is_set_again_is_moved
    a_cancelled_timer_does_not_ring
    more_timers_than_the_limit_are_refused
    timers_of_a_closed_session_do_not_ring
}

const HOUR: Duration = Duration::from_secs(3600);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Does what the packet says: "set ID MILLIS", "cancel ID", "close"; tells of each timer that rings.
fn clock() -> Scripted<()> {
    let obey = |session: &mut Session<'_>, (): &mut (), packet: &[u8]| {
        let text = String::from_utf8_lossy(packet).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u32>().map_err(Failure::from);
        let reply = match words[..] {
            ["set", id, after] => {
                match session.set_timer(TimerId(number(id)?), millis(number(after)?.into())) {
                    Ok(()) => return Ok(()),
                    Err(error) => error.to_string(),
                }
            }
            ["cancel", id] => session.cancel_timer(TimerId(number(id)?)).to_string(),
            ["close"] => {
                session.close();
                return Ok(());
            }
            _ => text,
        };
        Ok(session.send(reply)?)
    };
    Scripted::answering(obey).on_timer(|session, (), timer| Ok(session.send(format!("rang {}", timer.0))?))
}

/// In one write, so that all of it is done in one turn.
fn tell(client: &mut Client, orders: &[&str]) {
    let wire: Vec<u8> = orders.iter().flat_map(|order| frame(order.as_bytes())).collect();
    client.write(&wire);
}

fn timers_ring_once_in_the_order_they_are_due(on: On) {
    let served = on.serve(Limits::default(), clock());
    let mut client = served.connect();
    tell(&mut client, &["set 3 30", "set 1 10", "set 2 20", "set 0 0", "set 4 40"]);
    for number in 0..5 {
        assert_eq!(client.recv_text(), format!("rang {number}"));
    }
    tell(&mut client, &["set 9 10"]);
    assert_eq!(client.recv_text(), "rang 9", "and none of the others again");
    client.assert_echo("still served");
    drop(client);
    served.finish();
}

/// Sets a timer of as many milliseconds as the packet says, after it has been busy for a moment; when it rings, tells by how much
/// that was too early.
fn alarms() -> Scripted<Vec<(Instant, Duration)>> {
    let set = |session: &mut Session<'_>, set: &mut Vec<(Instant, Duration)>, packet: &[u8]| {
        let text = std::str::from_utf8(packet)?;
        let after = millis(text.parse()?);
        std::thread::sleep(Duration::from_micros(1_700));
        set.push((Instant::now(), after));
        Ok(session.set_timer(TimerId(set.len() as u32 - 1), after)?)
    };
    Scripted::answering(set).on_timer(|session, set, timer| {
        let (at, after) = set[timer.0 as usize];
        let early = after.saturating_sub(at.elapsed());
        Ok(session.send(format!("{early:?}"))?)
    })
}

fn a_timer_never_rings_early(on: On) {
    let served = on.serve(Limits::default().session_timers(100), alarms());
    let mut clients: Vec<Client> = (0..4).map(|_| served.connect()).collect();
    for client in &mut clients {
        tell(client, &["5", "1", "0", "2", "7", "3", "4", "1", "6", "5"]);
    }
    for client in &mut clients {
        for _ in 0..10 {
            assert_eq!(client.recv_text(), "0ns", "is by how much it was early");
        }
    }
    drop(clients);
    served.finish();
}

fn a_timer_that_is_set_again_is_moved(on: On) {
    let served = on.serve(Limits::default(), clock());
    let mut client = served.connect();
    tell(&mut client, &["set 1 3600000", "set 2 20", "set 1 10", "set 3 5", "set 3 30"]);
    for number in [1, 2, 3] {
        assert_eq!(client.recv_text(), format!("rang {number}"));
    }
    until("no timer is left", || served.metrics().timers == 0);
    client.assert_echo("still served");
    drop(client);
    served.finish();
}

fn a_cancelled_timer_does_not_ring(on: On) {
    let served = on.serve(Limits::default(), clock());
    let mut client = served.connect();
    tell(&mut client, &["set 1 10", "set 2 20", "cancel 1", "cancel 1", "cancel 7"]);
    for reply in ["true", "false", "false", "rang 2"] {
        assert_eq!(client.recv_text(), reply);
    }
    client.assert_echo("still served");
    drop(client);
    served.finish();
}

fn more_timers_than_the_limit_are_refused(on: On) {
    let served = on.serve(Limits::default().session_timers(2), clock());
    let (mut bystander, mut client) = (served.connect(), served.connect());
    tell(&mut client, &["set 1 3600000", "set 2 3600000", "set 3 1", "set 2 5"]);
    let refused = "2 timers are set, the limit; cancel one or raise limits.session_timers";
    assert_eq!(client.recv_text(), refused);
    assert_eq!(client.recv_text(), "rang 2", "one that is set can be moved");
    // There is room for another again, and for as many on another session.
    tell(&mut client, &["set 3 1"]);
    assert_eq!(client.recv_text(), "rang 3");
    tell(&mut bystander, &["set 1 1"]);
    assert_eq!(bystander.recv_text(), "rang 1");
    drop((client, bystander));
    served.finish();
}

fn timers_of_a_closed_session_do_not_ring(on: On) {
    let served = on.serve(Limits::default(), clock());
    let mut bystander = served.connect();
    let mut client = served.connect();
    tell(&mut client, &["set 1 0", "set 2 1", "close"]);
    client.assert_end();
    drop(client);
    tell(&mut bystander, &["set 3 5"]);
    assert_eq!(bystander.recv_text(), "rang 3");
    drop(bystander);
    served.finish();
}

#[test]
fn a_timer_of_an_hour_is_kept_and_given_back() {
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        session.set_timer(TimerId(1), HOUR)?;
        Ok(session.send(packet)?)
    });
    let served = On::SingleReactor.serve(Limits::default(), handler);
    let mut client = served.connect();
    client.assert_echo("set");
    until("it is counted", || served.metrics().timers >= 1);
    drop(client);
    served.finish();
}

//! Services that end while others on the same thread go on.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use crate::{
    contained::Contained,
    error::CloseKind,
    handler::Then,
    limits::Limits,
    runtime::{PostOutcome, ShardRegistry, Stop},
    session::TimerId,
    shard::{Command, Job},
    sim::{
        Heard, Probe, SimPlatform, Sizes, frame,
        tests::services::{Other, Two, handle, knowing, users_and_admin},
    },
};

#[test]
fn each_service_ends_for_itself_and_the_thread_with_the_last() {
    let mut two = users_and_admin();
    let (user, admin) = (two.connect(0), two.connect(1));
    two.run_until(10);
    two.registries[0].stop(Stop::Within(Duration::from_millis(100)));
    two.network.lock().at(15, move |net| net.leave(user));
    two.run_until(50);
    assert!(two.registries[0].shards().is_empty() && two.ended.is_none());
    two.say(admin, b"nobody hears it");
    two.run_until(60);
    assert_eq!(two.network.lock().hear_all(admin), frame(b"done"));
    two.registries[1].stop(Stop::Now);
    two.run_until(70);
    assert!(matches!(two.ended, Some(Ok(()))), "{:?}", two.ended);
    assert!(two.registries[1].shards().is_empty());
    assert_eq!(two.network.lock().streams(), 0, "descriptors");
    two.log.assert_balanced(true);
}

#[test]
fn what_is_sent_to_a_service_that_has_ended_goes_nowhere() {
    let other = Other::default();
    let to = other.clone();
    let outcomes = Arc::<Mutex<Vec<_>>>::default();
    let noted = outcomes.clone();
    let relay = move |probe: &mut Probe| {
        let (to, noted) = (to.clone(), noted.clone());
        probe.packet = Box::new(move |session, packet| {
            let sent = (session.send_to(handle(&to).id(), packet), session.close_session(handle(&to).id()));
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            Ok(())
        });
    };
    let mut two = Two::start(&Limits::default(), Sizes::default(), [knowing(&other), Box::new(relay)]);
    let (_gone, asks) = (two.connect(0), two.connect(1));
    two.run_until(10);
    two.registries[0].stop(Stop::Now);
    two.run_until(20);
    assert!(two.registries[0].shards().is_empty());
    two.say(asks, b"hello?");
    two.run_until(30);
    let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(outcomes, [(Ok(()), Ok(()))]);
}

#[test]
fn a_session_that_asks_for_a_link_just_as_the_other_service_ends_is_not_left_waiting() {
    let other = Other::default();
    let (to, registries) = (other.clone(), Arc::<OnceLock<Arc<ShardRegistry<SimPlatform>>>>::default());
    let theirs = registries.clone();
    let late = move |probe: &mut Probe| {
        let (to, theirs) = (to.clone(), theirs.clone());
        probe.packet = Box::new(|session, _| Ok(session.set_timer(TimerId(1), Duration::from_millis(10))?));
        probe.timer = Box::new(move |session, _| {
            // So that what it asks for waits behind this in the mailbox, which the other has emptied in this turn.
            let idle = Command::Execute(Contained::new(Job::Plain(Box::new(|_| ()))));
            let registry = theirs.get().expect("it runs");
            assert_eq!(registry.ask(handle(&to).id().shard(), idle), PostOutcome::Posted);
            Ok(session.link(handle(&to).id())?)
        });
    };
    let stay = {
        let other = other.clone();
        move |probe: &mut Probe| {
            knowing(&other)(probe);
            probe.shutdown = Box::new(|_, ()| Ok(Then::Stay));
        }
    };
    let mut two = Two::start(&Limits::default(), Sizes::default(), [Box::new(stay), Box::new(late)]);
    assert!(registries.set(two.registries[0].clone()).is_ok());
    let (last, asks) = (two.connect(0), two.connect(1));
    two.run_until(10);
    two.registries[0].stop(Stop::Within(Duration::from_secs(60)));
    two.run_until(20);
    two.say(asks, b"link soon");
    two.run_until(21);
    // In the turn of the timer, the last session of the other service ends.
    two.network.lock().at(30, move |net| net.reset(last));
    two.run_until(100);
    assert!(two.registries[0].shards().is_empty(), "it has ended");
    let closes: Vec<_> = two.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(two.network.lock().hear(asks, 1), Heard::End, "{closes:?}");
    two.network.lock().leave(asks);
    two.run_until(110);
    let closes: Vec<_> = two.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(closes, [CloseKind::Io, CloseKind::LinkLost]);
}

//! Two services on one simulated thread: their sessions reach each other, and each ends for itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    ShardContext,
    contained::Contained,
    error::{CloseKind, ServeError},
    events::{Events, Publisher},
    framing::LengthPrefix,
    id::{SessionId, ShardId},
    layer::LayerFactories,
    limits::Limits,
    reactor::SocketOptions,
    runtime::{
        PostOutcome, RunningThread, ServiceParts, ShardNumbers, ShardRegistry, StartService, Stop,
        start_workers,
    },
    session::{SessionHandle, TimerId},
    shard::{Command, Framings, Job, OtherFramings},
    sim::{Conn, Heard, Log, Network, Probe, SimPlatform, Sizes, frame, platform::Probes},
    strategy::{ForkingStrategy, SingleReactor},
    sync::Admission,
};

/// A thread with two services, each with a listener.
pub(super) struct Two {
    pub(super) network: Network,
    pub(super) log: Log,
    pub(super) registries: Vec<Arc<ShardRegistry<SimPlatform>>>,
    listeners: Vec<usize>,
    thread: RunningThread<SimPlatform>,
    pub(super) ended: Option<Result<(), ServeError>>,
}

/// Makes something else of the handler of one service.
pub(super) type Change = Box<dyn FnMut(&mut Probe)>;

impl Two {
    pub(super) fn start(limits: &Limits, sizes: Sizes, mut change: [Change; 2]) -> Self {
        let network = Network::new(1, sizes);
        network.lock().waits = true;
        let log = Log::new(network.clone());
        let platform = SimPlatform::new(&network);
        let numbers = ShardNumbers::of_services(2, 1);
        let (mut services, mut registries, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
        for (numbers, change) in numbers.into_iter().zip(&mut change) {
            let admission = Admission::new(1, 100, None);
            let (layers, options) = (LayerFactories::default(), SocketOptions::default());
            let publisher = Publisher::default();
            let registry = ShardRegistry::new(
                platform.clone(),
                admission,
                limits.clone(),
                layers,
                options,
                numbers,
                publisher,
            );
            let mut probe = Probe::new(log.clone());
            change(&mut probe);
            let own = Contained::new(LengthPrefix::u32_be());
            let mut framings = Framings::new(own, OtherFramings::default());
            framings.offer_max(limits.frame);
            let strategy: Box<dyn ForkingStrategy> = Box::new(SingleReactor::new());
            let listener = network.listen();
            listeners.push(listener.0.number);
            let service: Box<dyn StartService<SimPlatform>> = Box::new(ServiceParts::<_, Probe, _, _>::new(
                platform.clone(),
                registry.clone(),
                framings,
                Contained::new(Probes::new([probe], None)),
                Contained::new(strategy),
                Vec::new(),
                (vec![listener], Vec::new()),
            ));
            services.push(service);
            registries.push(registry);
        }
        ShardRegistry::join(&registries);
        let thread = start_workers(&platform, 0, &mut services, |()| ()).expect("it starts");
        let thread = thread.begin().expect("it begins");
        Self { network, log, registries, listeners, thread, ended: None }
    }

    pub(super) fn connect(&self, service: usize) -> Conn {
        self.network.lock().connect(self.listeners[service])
    }

    pub(super) fn say(&self, conn: Conn, packet: &[u8]) {
        self.network.lock().say(conn, &frame(packet));
    }

    /// Turns until this time.
    pub(super) fn run_until(&mut self, tick: u64) {
        self.network.lock().horizon = tick;
        for _ in 0..10_000 {
            if self.ended.is_some() || self.network.lock().now >= tick {
                break;
            }
            self.ended = self.thread.turn();
        }
        self.network.lock().horizon = u64::MAX;
    }

    fn turns(&self, service: usize) -> u64 {
        self.registries[service].metrics(Duration::ZERO).turns
    }
}

/// What users are known by to the other service.
type Known = Arc<Mutex<Vec<SessionId>>>;

pub(super) fn users_and_admin() -> Two {
    users_and_admin_with(&Limits::default(), Sizes::default())
}

fn users_and_admin_with(limits: &Limits, sizes: Sizes) -> Two {
    let known = Known::default();
    let (users, others) = (known.clone(), known);
    let list = move |probe: &mut Probe| {
        let users = users.clone();
        probe.open = Box::new(move |session, ()| {
            users.lock().unwrap_or_else(PoisonError::into_inner).push(session.id());
            Ok(())
        });
    };
    let command = move |probe: &mut Probe| {
        let others = others.clone();
        probe.packet = Box::new(move |session, packet| {
            for user in others.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                match packet {
                    b"kick" => session.close_session(*user)?,
                    b"link" => session.link(*user)?,
                    text => session.send_to(*user, text)?,
                }
            }
            Ok(session.send("done")?)
        });
    };
    Two::start(limits, sizes, [Box::new(list), Box::new(command)])
}

#[test]
fn a_packet_for_a_session_of_another_service_is_written_in_the_same_turn() {
    let mut two = users_and_admin();
    let (users, admin) = ([two.connect(0), two.connect(0)], two.connect(1));
    two.run_until(10);
    two.say(admin, b"hello");
    two.say(admin, b"again");
    let before = (two.turns(0), two.turns(1));
    two.ended = two.thread.turn();
    assert_eq!((two.turns(0), two.turns(1)), (before.0 + 1, before.1 + 1));
    for user in users {
        assert_eq!(two.network.lock().hear_all(user), [frame(b"hello"), frame(b"again")].concat());
    }
    assert_eq!(
        two.registries.iter().map(|registry| registry.metrics(Duration::ZERO).wakeups).sum::<u64>(),
        0
    );
    two.say(users[0], b"echo");
    two.run_until(20);
    assert_eq!(two.network.lock().hear_all(users[0]), frame(b"echo"), "each has its own handler");
}

#[test]
fn a_session_of_another_service_is_closed_behind_what_was_sent_to_it() {
    let mut two = users_and_admin();
    let (user, admin) = (two.connect(0), two.connect(1));
    two.run_until(10);
    two.say(admin, b"goodbye");
    two.say(admin, b"kick");
    two.run_until(20);
    assert_eq!(two.network.lock().hear_all(user), frame(b"goodbye"));
    assert_eq!(two.network.lock().hear(user, usize::MAX), Heard::End);
    two.network.lock().leave(user);
    two.run_until(30);
    assert_eq!(two.log.closes(), [(20, CloseKind::Local)]);
    assert_eq!((two.registries[0].admission.total(), two.registries[1].admission.total()), (0, 1));
}

#[test]
fn sessions_of_two_services_are_linked_in_both_directions_and_to_their_ends() {
    let limits = Limits::default().outbox_high(4_000).outbox_low(1_000);
    let mut two = users_and_admin_with(&limits, Sizes { down: 1_000, ..Sizes::default() });
    let (user, admin) = (two.connect(0), two.connect(1));
    two.run_until(10);
    two.network.lock().say(admin, &[frame(b"link"), frame(b"behind it")].concat());
    two.run_until(11);
    assert_eq!(two.network.lock().hear_all(user), frame(b"behind it"));
    assert_eq!(two.network.lock().hear_all(admin), frame(b"done"));
    for (from, to) in [(user, admin), (admin, user)] {
        two.say(from, b"same turn");
        two.ended = two.thread.turn();
        assert_eq!(two.network.lock().hear_all(to), frame(b"same turn"));
        // More than an outbox may hold.
        let long: Vec<u8> = (0..200_u8).flat_map(|number| frame(&[number; 100])).collect();
        let (mut said, mut heard) = (0, Vec::new());
        for tick in 20..200 {
            said += two.network.lock().say(from, &long[said..]);
            let now = two.network.lock().now;
            two.run_until(now.max(tick) + 1);
            if tick > 40 {
                heard.extend(two.network.lock().hear_all(to));
            }
        }
        assert!(heard == long, "{} of {} bytes", heard.len(), long.len());
    }
    let held: u64 = two.registries.iter().map(|registry| registry.metrics(Duration::ZERO).buffered).sum();
    assert_eq!(held, 0);
    two.network.lock().end(admin);
    let now = two.network.lock().now;
    two.run_until(now + 5);
    assert_eq!(two.network.lock().hear(user, 1), Heard::End);
    two.say(user, b"the last");
    two.network.lock().leave(user);
    two.run_until(now + 10);
    assert_eq!(two.network.lock().hear_all(admin), frame(b"the last"));
    assert_eq!(two.network.lock().hear(admin, 1), Heard::End);
    let kinds: Vec<_> = two.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [CloseKind::PeerClosed; 2]);
}

#[test]
fn a_session_is_closed_with_the_linked_one_of_another_service() {
    let mut two = users_and_admin();
    let (user, admin) = (two.connect(0), two.connect(1));
    two.run_until(10);
    two.say(admin, b"link");
    two.run_until(11);
    two.registries[0].stop(Stop::Now);
    two.run_until(20);
    assert_eq!(two.network.lock().hear(user, 1), Heard::Reset);
    assert_eq!(two.network.lock().hear_all(admin), frame(b"done"));
    assert_eq!(two.network.lock().hear(admin, 1), Heard::End);
    // Their service has ended with them.
    let late = two.connect(1);
    two.run_until(21);
    two.say(late, b"link");
    two.run_until(30);
    assert_eq!(two.network.lock().hear_all(late), frame(b"done"));
    assert_eq!(two.network.lock().hear(late, 1), Heard::End);
    two.network.lock().leave(late);
    two.network.lock().leave(admin);
    two.run_until(40);
    let kinds: Vec<_> = two.log.closes().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [CloseKind::Shutdown, CloseKind::LinkLost, CloseKind::LinkLost]);
}

/// A session of the other service, once it is open.
pub(super) type Other = Arc<Mutex<Option<SessionHandle>>>;

pub(super) fn knowing(other: &Other) -> Change {
    let other = other.clone();
    Box::new(move |probe| {
        let other = other.clone();
        probe.open = Box::new(move |session, ()| {
            *other.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.handle());
            Ok(())
        });
    })
}

pub(super) fn handle(other: &Other) -> SessionHandle {
    other.lock().unwrap_or_else(PoisonError::into_inner).clone().expect("it is open")
}

#[test]
fn what_is_sent_when_an_outbox_has_drained_does_not_wait_for_another_event() {
    let other = Other::default();
    let to = other.clone();
    let drained = move |probe: &mut Probe| {
        let to = to.clone();
        probe.packet = Box::new(|session, _| Ok(session.send([7; 5_000])?));
        probe.drained = Box::new(move |session, ()| Ok(session.send_to(handle(&to).id(), "drained")?));
    };
    let limits = Limits::default().outbox_high(2_000).outbox_low(1_000);
    let sizes = Sizes { down: 1_000, ..Sizes::default() };
    // The one that is sent to comes first in the turn, and has been flushed by then.
    let mut two = Two::start(&limits, sizes, [knowing(&other), Box::new(drained)]);
    let (listener, slow) = (two.connect(0), two.connect(1));
    two.run_until(10);
    two.say(slow, b"go");
    two.run_until(20);
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let notes = heard.clone();
    // Nothing happens after the read that drains the outbox.
    for tick in 21..25 {
        two.network.lock().at(tick, move |net| drop(net.hear_all(slow)));
    }
    two.network.lock().at(40, move |net| {
        *notes.lock().unwrap_or_else(PoisonError::into_inner) = net.hear_all(listener);
    });
    two.run_until(50);
    assert_eq!(*heard.lock().unwrap_or_else(PoisonError::into_inner), frame(b"drained"));
}

#[test]
fn what_a_job_sends_to_another_service_by_id_is_not_overtaken_by_what_it_sends_there_through_a_handle() {
    let other = Other::default();
    let mut two = Two::start(&Limits::default(), Sizes::default(), [Box::new(|_| ()), knowing(&other)]);
    let (_sender, receiver) = (two.connect(0), two.connect(1));
    two.run_until(10);
    let to = handle(&other);
    let job: Box<dyn FnOnce(&mut ShardContext<'_>) + Send> = Box::new(move |shard| {
        shard.each(|session, ()| {
            assert_eq!(session.send_to(to.id(), "1"), Ok(()));
            assert_eq!(to.send("2"), Ok(()));
            assert_eq!(session.send_to(to.id(), "3"), Ok(()));
        });
    });
    let job = Command::Execute(Contained::new(Job::Plain(job)));
    assert_eq!(two.registries[0].ask(ShardId(0), job), PostOutcome::Posted);
    two.run_until(20);
    let expected = [frame(b"1"), frame(b"2"), frame(b"3")].concat();
    assert_eq!(two.network.lock().hear_all(receiver), expected);
}

#[test]
fn services_that_are_busy_at_the_same_time_share_a_turn() {
    let slow = || -> Change {
        Box::new(|probe: &mut Probe| {
            let block = probe.block();
            probe.quiet = true;
            probe.packet = Box::new(move |session, packet| {
                block(1);
                Ok(session.send(packet)?)
            });
        })
    };
    let mut two = Two::start(&Limits::default(), Sizes::default(), [slow(), slow()]);
    let conns: Vec<_> = (0..40).map(|at| (at, two.connect(at % 2))).collect();
    two.run_until(10);
    let mut longest = 0;
    for turn in 0..50 {
        for (_, conn) in &conns {
            two.network.lock().hear_all(*conn);
            two.say(*conn, b"x");
        }
        let began = two.network.lock().now;
        assert!(two.thread.turn().is_none(), "it runs on");
        // In the first turns, callbacks are not known to be slow.
        if turn >= 3 {
            longest = longest.max(two.network.lock().now - began);
        }
    }
    // Each of them 5 ms for events, as much for sessions that wait, and the callback that runs when that is over.
    assert!((10..=22).contains(&longest), "a turn of {longest} ms");
    two.run_until(20_000);
    assert!(conns.iter().all(|(_, conn)| two.network.lock().hear_all(*conn).ends_with(&frame(b"x"))));
}

#[test]
fn a_service_that_is_always_busy_leaves_time_for_another() {
    let busy = |probe: &mut Probe| {
        probe.start = Box::new(|shard, _| {
            shard.set_timer(TimerId(1), Duration::ZERO).expect("it is the first");
        });
        probe.shard_timer = Box::new(|shard, timer| {
            shard.set_timer(TimerId(timer), Duration::ZERO).expect("it was taken out");
        });
    };
    let mut two = Two::start(&Limits::default(), Sizes::default(), [Box::new(busy), Box::new(|_| ())]);
    let asks = two.connect(1);
    two.run_until(10);
    two.say(asks, b"hello");
    two.run_until(15);
    assert_eq!(two.network.lock().hear_all(asks), frame(b"hello"));
}

#[test]
fn a_slow_callback_of_one_service_is_blamed_on_no_session_of_the_other() {
    let ring = |probe: &mut Probe| {
        probe.open = Box::new(|session, ()| Ok(session.set_timer(TimerId(1), Duration::from_millis(100))?));
    };
    let known = Known::default();
    let users = known.clone();
    let block = move |probe: &mut Probe| {
        let (block, known) = (probe.block(), known.clone());
        probe.packet = Box::new(move |session, packet| {
            block(150);
            if packet == b"tell" {
                let users = known.lock().unwrap_or_else(PoisonError::into_inner);
                users.iter().try_for_each(|user| session.send_to(*user, packet))?;
            }
            Ok(())
        });
    };
    let greet = move |probe: &mut Probe| {
        ring(probe);
        let users = users.clone();
        probe.packet = Box::new(move |session, packet| {
            users.lock().unwrap_or_else(PoisonError::into_inner).push(session.id());
            Ok(session.send(packet)?)
        });
    };
    let mut two = Two::start(&Limits::default(), Sizes::default(), [Box::new(block), Box::new(greet)]);
    let watch = |service: usize| Events::new(100, vec![two.registries[service].hub().clone()]);
    let [blamed, innocent] = [watch(0), watch(1)];
    let (slow, quick) = (two.connect(0), two.connect(1));
    two.say(quick, b"I am here");
    two.run_until(50);
    two.say(slow, b"work");
    two.say(quick, b"in the same turn");
    two.run_until(500);
    two.say(slow, b"tell");
    two.run_until(1_000);
    let told = |events: &Events| events.try_iter().map(|event| event.to_string()).collect::<Vec<_>>();
    let slow: Vec<_> = told(&blamed);
    assert_eq!(slow.len(), 2, "{slow:?}");
    assert!(slow.iter().all(|line| line.starts_with("on_packet took 150ms for session")), "{slow:?}");
    assert_eq!(told(&innocent), Vec::<String>::new());
}

//! Accepting survives every error, and always goes on.

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
    vec::Drain,
};

use crate::{
    addr::NewConnection,
    contained::Contained,
    dial::NewDial,
    events::Reporter,
    id::ShardId,
    limits::Limits,
    metrics::Counters,
    reactor::{Acceptor, AcceptorConfig, Dispatch, DispatchDials, HandOverError, NoDispatch, Placed},
    shard::Incoming,
    sim::{Call, Fail, Heard, Network, Setup, SimFd, SimSys, Sizes, World, errno, frame},
    strategy::{Detached, ForkingStrategy, Placement, ShardLoads, WorkerPool},
    sync::{Admission, AdmissionPermit},
};

fn serves_everybody(world: &mut World, clients: usize) {
    let conns: Vec<_> = (0..clients).map(|_| world.connect()).collect();
    for conn in &conns {
        world.net().say(*conn, &frame(b"served?"));
    }
    for conn in &conns {
        assert_eq!(world.expect(*conn, 11), frame(b"served?"));
    }
    for conn in conns {
        world.net().end(conn);
    }
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn a_shortage_pauses_accepting_and_a_timer_resumes_it_without_a_new_event() {
    for errno in [errno::EMFILE, errno::ENFILE, errno::ENOBUFS, errno::ENOMEM] {
        for nth in 1..5 {
            let mut setup = Setup::default();
            setup.faults.fail = Some(Fail { call: Some(Call::Accept), nth, errno });
            let mut world = World::new(setup, |_| {});
            serves_everybody(&mut world, 4);
            assert_eq!((world.metrics().accept_pauses, world.now()), (1, 100), "errno {errno}, call {nth}");
        }
    }
}

#[test]
fn an_error_of_one_connection_costs_the_next_nothing() {
    for errno in [errno::ECONNABORTED, errno::EPROTO, errno::EINTR] {
        for nth in 1..5 {
            let mut setup = Setup::default();
            setup.faults.fail = Some(Fail { call: Some(Call::Accept), nth, errno });
            let mut world = World::new(setup, |_| {});
            serves_everybody(&mut world, 4);
            assert_eq!((world.metrics().accept_pauses, world.now()), (0, 0), "errno {errno}, call {nth}");
        }
    }
}

#[test]
fn a_listener_that_may_never_accept_does_not_spin_and_keeps_no_other_from_being_heard() {
    for errno in [errno::EPERM, errno::ECONNABORTED, errno::EPROTO, errno::EINTR] {
        let mut world = World::new(Setup { listeners: 2, ..Setup::default() }, |_| {});
        let [forbidden, free] = [world.listeners()[0], world.listeners()[1]];
        world.net().faults.forbidden = Some((forbidden, errno));
        let waiting = world.connect();
        world.net().say(waiting, &frame(b"at last"));
        world.run_until(10_050);
        let calls = world.net().calls.of(Call::Accept);
        let polls = world.net().polls;
        assert!(
            calls < 101 * 65 && polls < 300,
            "errno {errno}: {calls} calls, {polls} polls in ten seconds"
        );
        let conn = world.net().connect(free);
        world.net().say(conn, &frame(b"at once"));
        world.run_until(10_051);
        assert_eq!(world.net().hear_all(conn), frame(b"at once"), "errno {errno}");
        world.net().faults.forbidden = None;
        world.run_until(10_150);
        assert_eq!(world.net().hear_all(waiting), frame(b"at last"), "errno {errno}");
        world.net().leave(conn);
        world.net().leave(waiting);
        world.run_to_rest();
        world.assert_empty();
    }
}

/// Places every connection here. While it does so, another acceptor takes the last place.
struct TooLate {
    admission: Arc<Admission>,
    last: Option<mpsc::Sender<AdmissionPermit>>,
}

impl ForkingStrategy for TooLate {
    fn place(&mut self, connection: &NewConnection<'_>, _loads: ShardLoads<'_>) -> Placement {
        if let Some(last) = self.last.take() {
            let permit =
                self.admission.admit(Some(ShardId::ACCEPTOR), &connection.peer()).expect("the last place");
            last.send(permit).expect("the test keeps it");
        }
        Placement::On(ShardId::ACCEPTOR)
    }
}

/// An acceptor of a server that has one place, the descriptor of its listener, the admission, and the last place.
fn too_late(sys: &mut SimSys) -> (Acceptor<SimSys>, usize, Arc<Admission>, mpsc::Receiver<AdmissionPermit>) {
    let admission = Arc::new(Admission::new(1, 1, None));
    let (last, place) = mpsc::channel();
    let listeners = vec![sys.listen()];
    let listener = listeners[0].0.number;
    let strategy: Box<dyn ForkingStrategy> =
        Box::new(TooLate { admission: admission.clone(), last: Some(last) });
    let strategy = Contained::new(strategy);
    let dispatch = Box::new(NoDispatch);
    let here = ShardId::ACCEPTOR;
    let config = AcceptorConfig {
        listeners,
        strategy,
        dispatch,
        admission: admission.clone(),
        here,
        service: 0,
        reporter: Reporter::new(here, Arc::default()),
    };
    (Acceptor::new(sys, config).expect("a listener"), listener, admission, place)
}

#[test]
fn a_client_that_comes_too_late_for_the_last_place_waits_for_the_next() {
    let network = Network::new(1, Sizes::default());
    let (mut sys, _) = SimSys::new(&network);
    let (mut acceptor, listener, admission, place) = too_late(&mut sys);
    let conn = network.lock().connect(listener);
    let other = network.lock().connect(listener);
    let mut counters = Counters::default();
    for now in [0, 50, 100, 200] {
        acceptor.begin_turn(now);
        assert!(acceptor.poll_accept(&mut sys, &mut counters).is_none(), "there is no place at {now}");
        assert!(!acceptor.has_work(), "nothing but time helps at {now}");
    }
    assert_eq!((counters.accepted, counters.refused_total()), (1, 0), "the other one waits in the backlog");
    drop(place.recv().expect("the other acceptor has it"));
    assert_eq!(acceptor.deadline(), Some(300));
    acceptor.begin_turn(300);
    let served = acceptor.poll_accept(&mut sys, &mut counters).expect("there is a place");
    assert!(matches!(served, Placed::Here(_)));
    assert!(acceptor.poll_accept(&mut sys, &mut counters).is_none(), "there was one");
    assert_eq!((counters.accepted, counters.refused_total(), admission.total()), (1, 0, 1));
    for waiting in [conn, other] {
        assert_eq!(network.lock().hear(waiting, 1), Heard::Nothing, "nobody is turned away");
    }
    drop(served);
    acceptor.stop(&mut counters);
    assert_eq!(counters.refused_total(), 0, "who was not accepted was not refused");
}

/// Counts what is handed over, to whom, and together.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<Vec<(ShardId, usize)>>>);

impl Dispatch<SimFd> for Counting {
    fn send(&mut self, shard: ShardId, batch: Drain<'_, Incoming<SimFd>>) -> io::Result<()> {
        self.0.lock().expect("one thread").push((shard, batch.len()));
        if shard == ShardId::new(3) { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) }
    }

    fn fork(&mut self, _incoming: Incoming<SimFd>) -> Result<(), HandOverError<SimFd>> {
        Err(HandOverError { error: io::ErrorKind::NotConnected.into(), incoming: None })
    }
}

impl DispatchDials for Counting {
    fn send_dial(&mut self, _shard: ShardId, _dial: Box<NewDial>) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn fork_dial(&mut self, _dial: Box<NewDial>) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

#[test]
fn connections_of_one_turn_are_handed_over_together_to_each_worker() {
    let network = Network::new(1, Sizes::default());
    let (mut sys, _) = SimSys::new(&network);
    let listeners = vec![network.listen()];
    let listener = listeners[0].0.number;
    let (admission, sent) = (Arc::new(Admission::new(4, 1_000, None)), Counting::default());
    let strategy: Box<dyn ForkingStrategy> = Box::new(WorkerPool::new(3));
    let (strategy, dispatch) = (Contained::new(strategy), Box::new(sent.clone()));
    let here = ShardId::ACCEPTOR;
    let config = AcceptorConfig {
        listeners,
        strategy,
        dispatch,
        admission: admission.clone(),
        here,
        service: 0,
        reporter: Reporter::new(here, Arc::default()),
    };
    let mut acceptor = Acceptor::new(&mut sys, config).expect("a listener");
    let conns: Vec<_> = (0..60).map(|_| network.lock().connect(listener)).collect();
    let mut counters = Counters::default();
    acceptor.begin_turn(0);
    while let Some(placed) = acceptor.poll_accept(&mut sys, &mut counters) {
        assert!(matches!(placed, Placed::Elsewhere), "nobody lives here");
    }
    assert_eq!(*sent.0.lock().expect("one thread"), [], "not one by one");
    acceptor.hand_over(&mut counters);
    let together: Vec<_> = (1..=3).map(|worker| (ShardId::new(worker), 20)).collect();
    assert_eq!(*sent.0.lock().expect("one thread"), together);
    // The last worker is gone: its connections are dropped, and accepting pauses.
    assert_eq!((counters.accepted, counters.refused_total(), counters.accept_pauses), (60, 20, 1));
    assert_eq!((admission.total(), acceptor.deadline()), (0, Some(100)));
    let told = conns.iter().filter(|conn| network.lock().hear(**conn, 1) == Heard::End).count();
    assert_eq!(told, 60);
    acceptor.hand_over(&mut counters);
    assert_eq!(sent.0.lock().expect("one thread").len(), 3, "and once");
}

#[test]
fn a_client_that_waits_for_a_place_is_counted_as_refused_when_the_server_stops() {
    let network = Network::new(1, Sizes::default());
    let (mut sys, _) = SimSys::new(&network);
    let (mut acceptor, listener, _, _place) = too_late(&mut sys);
    let conn = network.lock().connect(listener);
    let mut counters = Counters::default();
    acceptor.begin_turn(0);
    assert!(acceptor.poll_accept(&mut sys, &mut counters).is_none());
    acceptor.stop(&mut counters);
    assert_eq!((counters.accepted, counters.refused_total()), (1, 1));
    assert_eq!(network.lock().hear(conn, 1), Heard::End);
}

/// Wants every connection.
struct Collector;

impl ForkingStrategy for Collector {
    fn place(&mut self, _connection: &NewConnection<'_>, loads: ShardLoads<'_>) -> Placement {
        assert_eq!((loads.total(), loads.detached()), (0, 0));
        Placement::Detach
    }

    fn detach(&mut self, connection: Detached) {
        panic!("a simulated socket became {connection:?}");
    }
}

#[test]
fn a_connection_that_cannot_be_detached_is_closed_and_leaves_the_counts() {
    let network = Network::new(1, Sizes::default());
    let (mut sys, _) = SimSys::new(&network);
    let listeners = vec![sys.listen()];
    let listener = listeners[0].0.number;
    let strategy: Box<dyn ForkingStrategy> = Box::new(Collector);
    let (strategy, dispatch) = (Contained::new(strategy), Box::new(NoDispatch));
    let (admission, here) = (Arc::new(Admission::new(1, 10, None)), ShardId::ACCEPTOR);
    let config = AcceptorConfig {
        listeners,
        strategy,
        dispatch,
        admission: admission.clone(),
        here,
        service: 0,
        reporter: Reporter::new(here, Arc::default()),
    };
    let mut acceptor = Acceptor::new(&mut sys, config).expect("a listener");
    let conns = [(); 2].map(|()| network.lock().connect(listener));
    let mut counters = Counters::default();
    acceptor.begin_turn(0);
    while let Some(placed) = acceptor.poll_accept(&mut sys, &mut counters) {
        assert!(matches!(placed, Placed::Elsewhere), "nobody lives here");
    }
    assert_eq!(
        (counters.accepted, counters.refused_total(), counters.detached, counters.panics),
        (2, 2, 0, 0)
    );
    assert_eq!((admission.total(), admission.detached()), (0, 0));
    assert_eq!(conns.map(|conn| network.lock().hear(conn, 1)), [Heard::End, Heard::End]);
}

#[test]
fn clients_that_wait_for_a_descriptor_are_served_when_one_is_free_and_nobody_knocks_again() {
    let mut setup = Setup::default();
    setup.sizes.descriptors = 10;
    let mut world = World::new(setup, |_| {});
    let conns: Vec<_> = (0..60).map(|_| world.connect()).collect();
    for conn in &conns {
        world.net().say(*conn, &frame(b"me too"));
    }
    let mut served = 0;
    let mut polls = 0;
    let mut open = conns;
    for second in 1..20 {
        polls = polls.max(world.net().polls);
        world.run_until(second * 1_000);
        assert!(world.net().polls - polls < 60, "out of descriptors is no reason to spin");
        open.retain(|conn| {
            let mut net = world.network.lock();
            let done = net.hear_all(*conn) == frame(b"me too");
            if done {
                net.leave(*conn);
                served += 1;
            }
            !done
        });
    }
    assert_eq!(served, 60);
    world.run_to_rest();
    world.assert_empty();
}

#[test]
fn at_its_connection_limit_the_server_lets_clients_wait() {
    let mut world = World::new(Setup { connections: 2, ..Setup::default() }, |_| {});
    let [a, b, c] = [(); 3].map(|()| world.connect());
    for conn in [a, b, c] {
        world.net().say(conn, &frame(b"x"));
    }
    world.run_until(950);
    for served in [a, b] {
        assert_eq!(world.net().hear_all(served), frame(b"x"));
    }
    assert_eq!(world.hears(c), Heard::Nothing);
    world.net().leave(a);
    world.run_until(1_100);
    assert_eq!(world.net().hear_all(c), frame(b"x"));
}

#[test]
fn a_peer_beyond_its_share_is_reset() {
    let limits = Limits::default().connections_per_peer(1);
    let mut world = World::new(Setup { limits, ..Setup::default() }, |_| {});
    let conns: Vec<_> = (0..2).map(|_| world.connect()).collect();
    world.run_until(10);
    assert_eq!(
        conns.iter().map(|conn| world.hears(*conn)).collect::<Vec<_>>(),
        [Heard::Nothing, Heard::Reset]
    );
    assert_eq!(world.metrics().refused_total(), 1);
}

#[test]
fn a_client_that_is_gone_before_it_is_accepted_hurts_nobody() {
    let mut world = World::new(Setup::default(), |_| {});
    for n in 0..50 {
        let conn = world.connect();
        world.net().say(conn, b"half");
        if n % 2 == 0 { world.net().reset(conn) } else { world.net().leave(conn) }
    }
    serves_everybody(&mut world, 3);
    assert_eq!(world.metrics().opened, 53);
}

#[test]
fn a_pool_places_by_load_and_serves_everybody() {
    let mut world = World::new(Setup { workers: 3, ..Setup::default() }, |_| {});
    serves_everybody(&mut world, 300);
    assert_eq!(world.metrics().opened, 300);
}

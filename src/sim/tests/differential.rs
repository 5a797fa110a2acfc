//! The simulated network held against the real one: the same random scripts on loopback sockets and in memory. Every
//! kind of readiness that the real poll reports, the simulated one must allow at the same step.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    reactor::{BoundSocket, MioSys, Ready, SocketOptions, Sys},
    sim::{Conn, Network, Rng, SimSys, Sizes},
};

/// The bytes of one script fit into any socket buffer, so that both worlds take and give the same.
const SCRIPTS: u64 = 200;
const LISTENER: u64 = 1 << 40;
const STREAM: u64 = 7;

#[derive(Debug, Clone, Copy)]
enum Step {
    ClientSays(usize),
    ClientHears(usize),
    ClientEnds,
    ServerReads(usize),
    ServerWrites(usize),
    ServerEnds,
}

fn script(rng: &mut Rng) -> Vec<Step> {
    let (mut client_ended, mut server_ended) = (false, false);
    let mut step = || match rng.below(12) {
        0..4 if !client_ended => Step::ClientSays(rng.between(1, 500) as usize),
        4 if !client_ended => {
            client_ended = true;
            Step::ClientEnds
        }
        5..7 => Step::ClientHears(rng.between(1, 500) as usize),
        7..9 if !server_ended => Step::ServerWrites(rng.between(1, 500) as usize),
        9 if !server_ended => {
            server_ended = true;
            Step::ServerEnds
        }
        _ => Step::ServerReads(rng.between(1, 700) as usize),
    };
    (0..12).map(|_| step()).collect()
}

/// What one step led to: what a call returned, and what the poll reported of the stream afterwards, merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct BytesPreview {
    answer: Option<usize>,
    readable: bool,
    writable: bool,
    hangup: bool,
    error: bool,
}

impl BytesPreview {
    fn add(&mut self, events: &[Ready]) {
        for event in events.iter().filter(|event| event.token == STREAM) {
            self.readable |= event.readable;
            self.writable |= event.writable;
            self.hangup |= event.hangup;
            self.error |= event.error;
        }
    }
}

/// Waits for the poll to report something that `enough` accepts.
fn poll_until<Y: Sys>(sys: &mut Y, mut enough: impl FnMut(&[Ready]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut wait = Duration::ZERO;
    loop {
        let mut events = Vec::new();
        match sys.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("poll: {error}"),
            _ => {}
        }
        if enough(&events) {
            return;
        }
        wait = Duration::from_millis(20);
        assert!(Instant::now() < deadline, "the poll did not tell what it had to");
    }
}

/// The server's part of a step.
fn serve<Y: Sys>(sys: &mut Y, stream: &mut Y::Stream, step: Step) -> Option<usize> {
    let answer = match step {
        Step::ServerReads(n) => sys.recv(stream, &mut vec![0; n]),
        Step::ServerWrites(n) => sys.send(stream, &vec![7; n]),
        Step::ServerEnds => sys.shutdown_write(stream).map(|()| 0),
        _ => return None,
    };
    match answer {
        Ok(n) => Some(n),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{step:?}: {error}"),
    }
}

/// What the simulated poll reported, and what it could have reported: repeating an event is allowed.
fn in_memory(steps: &[Step]) -> Vec<(BytesPreview, Ready)> {
    let network = Network::new(1, Sizes { up: 1 << 20, down: 1 << 20, ..Sizes::default() });
    let (mut sys, _ring) = SimSys::new(&network);
    let (mut listener, _) = sys.listen();
    sys.register_listener(&mut listener, LISTENER).expect("a listener");
    let conn: Conn = network.lock().connect(listener.number);
    let (mut stream, _) = sys.accept(&mut listener).expect("a client");
    sys.register(&mut stream, STREAM).expect("a stream");
    let stream_number = stream.number;
    let mut seen = Vec::new();
    let mut look = |sys: &mut SimSys, answer| {
        let (mut events, mut one) = (Vec::new(), BytesPreview { answer, ..BytesPreview::default() });
        sys.poll(&mut events, Some(Duration::ZERO)).expect("a poll");
        one.add(&events);
        let level = network.lock().readiness(stream_number).expect("writable at least");
        seen.push((one, level));
    };
    look(&mut sys, None);
    for step in steps {
        let answer = serve(&mut sys, &mut stream, *step);
        let mut net = network.lock();
        match *step {
            Step::ClientSays(n) => assert_eq!(net.say(conn, &vec![1; n]), n),
            Step::ClientHears(n) => drop(net.hear(conn, n)),
            Step::ClientEnds => net.end(conn),
            _ => {}
        }
        drop(net);
        look(&mut sys, answer);
    }
    seen
}

/// On loopback. What the simulation says will come is waited for; whatever else comes is kept.
fn for_real(steps: &[Step], expected: &[(BytesPreview, Ready)]) -> Vec<BytesPreview> {
    let (mut sys, _ring) = MioSys::new(Instant::now()).expect("a poll");
    let bound = BoundSocket::tcp(SocketAddr::from(([127, 0, 0, 1], 0)), false).expect("a port");
    let (mut listener, addr) = bound.listen(&SocketOptions::default()).expect("a listener");
    sys.register_listener(&mut listener, LISTENER).expect("a listener");
    let mut client = TcpStream::connect(addr.socket_addr().expect("tcp")).expect("connect");
    client.set_nodelay(true).expect("an option");
    poll_until(&mut sys, |events| events.iter().any(|event| event.token == LISTENER));
    let (mut stream, _) = sys.accept(&mut listener).expect("a client");
    sys.register(&mut stream, STREAM).expect("a stream");
    let mut seen = Vec::new();
    let mut on_the_way = 0;
    for (step, (expected, _)) in [None].into_iter().chain(steps.iter().map(|step| Some(*step))).zip(expected)
    {
        let answer = step.and_then(|step| serve(&mut sys, &mut stream, step));
        match step {
            Some(Step::ClientSays(n)) => client.write_all(&vec![1; n]).expect("a write"),
            Some(Step::ClientHears(n)) if on_the_way > 0 => {
                let wanted = n.min(on_the_way);
                client.read_exact(&mut vec![0; wanted]).expect("a read");
                on_the_way -= wanted;
            }
            Some(Step::ClientEnds) => client.shutdown(Shutdown::Write).expect("an end"),
            Some(Step::ServerWrites(_)) => on_the_way += answer.unwrap_or_default(),
            _ => {}
        }
        let mut one = BytesPreview { answer, ..BytesPreview::default() };
        let told = [expected.readable, expected.writable, expected.hangup];
        poll_until(&mut sys, |events| {
            one.add(events);
            let so_far = [one.readable, one.writable, one.hangup];
            told.iter().zip(so_far).all(|(expected, seen)| !expected || seen)
        });
        seen.push(one);
    }
    seen
}

#[test]
fn what_the_real_poll_tells_the_simulated_one_tells_too_step_by_step() {
    for seed in 0..SCRIPTS {
        let steps = script(&mut Rng::new(seed));
        let simulated = in_memory(&steps);
        let real = for_real(&steps, &simulated);
        for (at, ((told, level), real)) in simulated.iter().zip(&real).enumerate() {
            assert_eq!(told.answer, real.answer, "step {at} of seed {seed}: {steps:?}");
            let allowed = [level.readable, level.writable, level.hangup, level.error];
            let seen = [real.readable, real.writable, real.hangup, real.error];
            let lies = seen.iter().zip(allowed).any(|(seen, allowed)| *seen && !allowed);
            assert!(!lies, "step {at} of seed {seed}: {real:?}, where only {level:?} is allowed: {steps:?}");
        }
    }
}

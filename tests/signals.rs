//! Servers that end on signals. These come to a whole process, so its tests take turns.
#![cfg(all(unix, feature = "signals"))]
#![allow(clippy::print_stdout, reason = "one process tells another how far it is")]

mod common;

use std::{
    env,
    io::{BufRead, BufReader, Lines},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use common::{Client, On, Served, addr_of, frame, join, on_each_strategy};
use framewire::{
    Handled, LengthPrefix, Limits, PacketHandler, Reactor, Server, Session, SingleReactor, Then, packet_fn,
};
use nix::sys::signal::{Signal, raise};

/// More than any test takes.
const HOUR: Duration = Duration::from_secs(3600);

on_each_strategy! {
    the_first_signal_asks_the_sessions_to_end_and_the_second_cuts_them
}

fn in_turns(test: impl FnOnce()) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    test();
}

/// Echoes, and is in no hurry to end.
#[derive(Clone)]
struct Stays;

impl PacketHandler for Stays {
    type State = ();

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        Ok(session.send(packet)?)
    }

    fn on_shutdown(&mut self, session: &mut Session<'_>, (): &mut ()) -> Handled<Then> {
        session.send("soon")?;
        Ok(Then::Stay)
    }
}

fn the_first_signal_asks_the_sessions_to_end_and_the_second_cuts_them(on: On) {
    in_turns(|| {
        for signals in [[Signal::SIGINT, Signal::SIGTERM], [Signal::SIGTERM, Signal::SIGINT]] {
            let server = on.bind().framing(LengthPrefix::u32_be()).stop_on_signal(HOUR);
            let served = Served::start(server, Stays);
            let mut client = served.connect();
            client.assert_echo("before");
            raise(signals[0]).expect("it is ours");
            assert_eq!(client.recv_text(), "soon");
            client.assert_echo("after");
            raise(signals[1]).expect("it is ours");
            assert_eq!(client.read_to_any_end().0, b"");
            served.await_stop();
        }
    });
}

#[test]
fn a_server_that_serves_on_its_callers_thread_returns_at_a_signal() {
    in_turns(|| {
        let server = On::SingleReactor.bind().framing(LengthPrefix::u32_be()).stop_on_signal(HOUR);
        let (addr, handle) = (addr_of(&server.local_addrs()[0]), server.handle());
        let serving = thread::spawn(move || server.serve(common::echo()));
        let mut client = Client::connect(&addr).expect("it is bound");
        client.assert_echo("hello");
        raise(Signal::SIGTERM).expect("it is ours");
        client.assert_end();
        drop(client);
        join(serving).expect("it was asked to stop");
        assert_eq!((handle.metrics().opened, handle.session_count()), (1, 0));
    });
}

#[test]
fn all_services_of_a_reactor_end_when_any_of_them_has_the_option() {
    let service = || On::SingleReactor.bind().framing(LengthPrefix::u32_be());
    let one_of_two = |with: Server<LengthPrefix>, without: Server<LengthPrefix>| {
        let addrs = [&with, &without].map(|server| addr_of(&server.local_addrs()[0]));
        let reactor = Reactor::new(SingleReactor::new());
        (addrs, reactor.service(without, common::echo()).service(with, common::echo()))
    };
    in_turns(|| {
        let (addrs, by_service) = one_of_two(service().stop_on_signal(HOUR), service());
        let (more_addrs, by_reactor) = one_of_two(service(), service());
        for (addrs, reactor) in [(addrs, by_service), (more_addrs, by_reactor.stop_on_signal(HOUR))] {
            let running = reactor.spawn().expect("the services start");
            let mut clients = addrs.map(|addr| Client::connect(&addr).expect("it is bound"));
            clients.iter_mut().for_each(|client| client.assert_echo("hello"));
            raise(Signal::SIGINT).expect("it is ours");
            clients.iter_mut().for_each(Client::assert_end);
            drop(clients);
            running.wait().expect("it was asked to stop");
        }
    });
}

#[test]
fn a_server_without_the_option_outlives_the_signals_of_another() {
    in_turns(|| {
        let other = On::SingleReactor.echo(Limits::default());
        let mut client = other.connect();
        let ends = On::SingleReactor.bind().framing(LengthPrefix::u32_be()).stop_on_signal(HOUR);
        let ends = Served::start(ends, common::echo());
        raise(Signal::SIGTERM).expect("it is ours");
        ends.await_stop();
        raise(Signal::SIGTERM).expect("it is ours"); // nobody waits for it any more
        client.assert_echo("still here");
        drop(client);
        other.finish();
    });
}

/// Set in the process whose handler blocks.
const BLOCKED: &str = "FRAMEWIRE_TEST_BLOCKED";

#[test]
fn the_third_signal_ends_a_process_whose_handler_blocks() {
    if env::var_os(BLOCKED).is_some() {
        return block_for_ever();
    }
    let mut process = Blocked::start();
    let port = process.await_line("port ");
    let addr = format!("127.0.0.1:{port}").parse::<std::net::SocketAddr>().expect("it says its port");
    let mut client = Client::connect(&addr.into()).expect("it is bound");
    client.write(&frame(b"block"));
    process.await_line("blocked");
    process.signal("-TERM");
    process.await_line("stopping gracefully");
    process.signal("-INT");
    process.await_line("the second signal");
    process.signal("-TERM");
    let status = process.child.wait().expect("it is ours");
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status}");
}

/// The other process: its one handler never returns.
fn block_for_ever() {
    tracing_subscriber::fmt().with_ansi(false).init();
    let block = packet_fn(|_, _| {
        println!("blocked");
        loop {
            thread::park();
        }
    });
    let server = On::SingleReactor.bind().framing(LengthPrefix::u32_be()).stop_on_signal(HOUR);
    let running = server.spawn(block).expect("the server starts");
    println!("port {}", running.local_addr().expect("bound to TCP").port());
    running.wait().expect("this never returns");
}

struct Blocked {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Blocked {
    fn start() -> Self {
        let mut child = Command::new(env::current_exe().expect("a test has a path"))
            .args(["--exact", "the_third_signal_ends_a_process_whose_handler_blocks", "--nocapture"])
            .env(BLOCKED, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    /// Returns what follows `text` on the next line that has it.
    fn await_line(&mut self, text: &str) -> String {
        for line in self.lines.by_ref() {
            if let Some((_, rest)) = line.expect("it prints text").split_once(text) {
                return rest.to_owned();
            }
        }
        panic!("it ended without {text:?}");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill is there");
        assert!(sent.success(), "cannot signal {pid}");
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // Fails when it has ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

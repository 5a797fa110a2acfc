//! A server that runs out of descriptors, in a process of its own for the sake of its limit: clients wait, nobody is lost, and
//! nothing spins.
#![cfg(target_os = "linux")]

mod common;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use common::{Client, On, PATIENCE, Served, until};
use framewire::{LengthPrefix, Limits, Metrics, packet_fn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the child process has.
const DESCRIPTORS: usize = 64;
/// More clients than that is enough for.
const CLIENTS: usize = 100;

#[test]
fn clients_past_the_descriptor_limit_wait_and_are_served_on_a_single_reactor() {
    clients_past_the_limit_wait_and_are_served("single", 100_000);
}

#[test]
fn clients_past_the_descriptor_limit_wait_and_are_served_on_a_worker_pool() {
    clients_past_the_limit_wait_and_are_served("pool", 100_000);
}

#[test]
fn clients_past_the_descriptor_limit_wait_and_are_served_on_a_thread_per_connection() {
    clients_past_the_limit_wait_and_are_served("threads", 100_000);
}

#[test]
fn the_default_limit_of_connections_keeps_a_single_reactor_clear_of_the_descriptor_limit() {
    clients_past_the_limit_wait_and_are_served("single", 0);
}

#[test]
fn the_default_limit_of_connections_keeps_a_worker_pool_clear_of_the_descriptor_limit() {
    clients_past_the_limit_wait_and_are_served("pool", 0);
}

#[test]
fn the_default_limit_of_connections_holds_on_a_thread_per_connection() {
    clients_past_the_limit_wait_and_are_served("threads", 0);
}

#[test]
fn a_server_has_no_more_listeners_than_it_can_number() {
    const MOST: usize = 1024;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of this process");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it may be raised so far");
    let start = |listeners: usize| {
        let addrs = vec![SocketAddr::from(([127, 0, 0, 1], 0)); listeners];
        let server =
            framewire::Server::bind(addrs).expect("there are ports enough").framing(LengthPrefix::u32_be());
        server.limits(Limits::default().connections(16)).spawn(packet_fn(|_, _| Ok(())))
    };
    let refused = start(MOST + 1).expect_err("one too many").to_string();
    assert!(refused.contains("1025 addresses; at most 1024"), "{refused}");
    start(MOST).expect("as many as are possible").stop(PATIENCE).expect("it stops in peace");
}

fn clients_past_the_limit_wait_and_are_served(strategy: &str, connections: usize) {
    let mut server = Server::start(strategy, connections);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let mut client = Client::connect(&server.addr.into()).expect("the backlog holds all");
            client.send([number as u8]);
            client
        })
        .collect();
    // The workers may be behind the one that accepts.
    let least = if strategy != "threads" && connections > 0 { DESCRIPTORS - 32 } else { 1 };
    let mut sessions = 0;
    until("accepting has paused", || {
        let told = server.told();
        sessions = told.sessions;
        told.pauses >= 2 && sessions >= least
    });
    match (strategy, connections) {
        // Each connection has a poll and a waker too.
        ("threads", 0) => assert!(sessions <= (DESCRIPTORS - 32) / 3, "{sessions} leave nothing"),
        ("threads", _) => assert!(sessions <= DESCRIPTORS / 3, "{sessions}"),
        (_, 0) => assert!(sessions <= DESCRIPTORS - 32, "{sessions} leave nothing for anybody else"),
        _ => assert!(sessions < DESCRIPTORS, "{sessions}"),
    }

    // While nothing changes, a turn or two per pause is all that happens, however long it lasts.
    let before = (server.told(), server.cpu_ticks());
    until("accepting has paused some more", || server.told().pauses >= before.0.pauses + 8);
    let after = (server.told(), server.cpu_ticks());
    let (pauses, asked) = (after.0.pauses - before.0.pauses, after.0.asked - before.0.asked);
    assert!(after.0.turns - before.0.turns <= 4 * pauses + asked, "{before:?} … {after:?}");
    // 8 pauses take 80 ticks of a hundredth of a second. Asking costs some of them as well.
    assert!(after.1 - before.1 <= 5 * pauses, "it spins: {before:?} … {after:?}");

    // The first are served. As they leave, the others are, in their turn; nobody is lost.
    for (at, group) in clients.chunks_mut(8).enumerate() {
        for (number, client) in group.iter_mut().enumerate() {
            assert_eq!(client.recv(), [(8 * at + number) as u8]);
            client.end();
            client.assert_end();
        }
    }
    drop(clients);
    until("all have left", || server.told().sessions == 0);
    let mut late = Client::connect(&server.addr.into()).expect("it still listens");
    late.assert_echo("the listener is well");
    drop(late);
    server.stop();
}

/// The server in its own process, where descriptors are few.
struct Server {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    addr: SocketAddr,
    asked: usize,
}

#[derive(Debug)]
struct Figures {
    pauses: usize,
    sessions: usize,
    turns: usize,
    /// How often it was asked so far.
    asked: usize,
}

impl Server {
    fn start(strategy: &str, connections: usize) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"")])
            .arg(env::current_exe().expect("a test has a file"))
            .args(["--exact", "--nocapture", "the_server_of_the_other_tests"])
            .env("FRAMEWIRE_STRATEGY", strategy)
            .env("FRAMEWIRE_CONNECTIONS", connections.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self { child, orders, answers, addr: ([0, 0, 0, 0], 0).into(), asked: 0 };
        server.addr = server.answer().parse().expect("first it tells its address");
        server
    }

    /// The next line that is for us, and not of the test harness.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).expect("a pipe") > 0, "the server has died");
            if let Some((_, answer)) = line.split_once("told: ") {
                return answer.trim().to_owned();
            }
        }
    }

    fn told(&mut self) -> Figures {
        self.asked += 1;
        writeln!(self.orders, "tell").expect("the server lives");
        let answer = self.answer();
        let mut numbers = answer.split(' ').map(|number| number.parse().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        Figures { pauses: next(), sessions: next(), turns: next(), asked: self.asked }
    }

    /// Hundredths of a second of processor time, of the kernel's as well.
    fn cpu_ticks(&self) -> usize {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let of = |field: &str| field.parse::<usize>().expect("a number");
        fields.split(' ').skip(11).take(2).map(of).sum()
    }

    /// Its audit is its exit code.
    fn stop(self) {
        let Self { mut child, orders, answers, .. } = self;
        drop(orders);
        let rest: Vec<String> = answers.lines().map_while(Result::ok).collect();
        let status = child.wait().expect("it ends");
        assert!(status.success(), "{status}: {rest:?}");
    }
}

/// Run by the other tests, in a process of its own; by itself it has nothing to do.
#[test]
fn the_server_of_the_other_tests() {
    let Ok(strategy) = env::var("FRAMEWIRE_STRATEGY") else { return };
    let connections = env::var("FRAMEWIRE_CONNECTIONS").expect("set beside the strategy");
    let on = match strategy.as_str() {
        "pool" => On::WorkerPool,
        "threads" => On::ThreadPerConnection,
        _ => On::SingleReactor,
    };
    let limits = Limits::default().connections(connections.parse().expect("a number"));
    let server = on.bind().framing(LengthPrefix::u32_be()).limits(limits);
    let served = Served::start(server, common::echo());
    let mut out = io::stdout();
    let addr = served.running.local_addr().expect("TCP");
    writeln!(out, "told: {addr}").expect("the parent listens");
    for line in io::stdin().lines() {
        line.expect("the parent writes text");
        let Metrics { accept_pauses, sessions, turns, .. } = served.metrics();
        writeln!(out, "told: {accept_pauses} {sessions} {turns}").expect("the parent listens");
    }
    served.finish();
}

#[test]
fn more_addresses_than_a_server_may_have_are_refused() {
    if env::var_os("FRAMEWIRE_MANY_ADDRESSES").is_some() {
        let server =
            framewire::Server::bind(vec!["127.0.0.1:0"; 1025]).expect("there are enough descriptors");
        let echo = common::echo();
        let error = server.framing(LengthPrefix::u32_be()).spawn(echo).expect_err("too many");
        assert_eq!(error.to_string(), "bind: 1025 addresses; at most 1024 are possible");
        return;
    }
    // In a process of its own, with descriptors for them all.
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 2048; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("a test has a file"))
        .args(["--exact", "more_addresses_than_a_server_may_have_are_refused"])
        .env("FRAMEWIRE_MANY_ADDRESSES", "")
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("there is a shell").success());
}

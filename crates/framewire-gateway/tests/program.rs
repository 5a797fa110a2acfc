//! The program: its arguments and its file, its signals, its page.
#![cfg(unix)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command as Program, Stdio},
    time::Duration,
};

use common::{KEY, PATIENCE, Peer, message, wait_until};
use framewire_gateway::protocol::Command;

/// The program as it runs; killed if a test fails.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    dir: Dir,
}

/// A directory for the files of one test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("framewire-gateway-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program() -> Program {
    let mut program = Program::new(env!("CARGO_BIN_EXE_framewire-gateway"));
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

impl Running {
    /// Starts it with a key and these lines at the head of its file.
    fn start(name: &str, head: &str) -> Self {
        let dir = Dir::new(name);
        let keys = dir.write("keys", KEY);
        let text = format!(
            "{head}\n[clients]\nlisten = [\"127.0.0.1:0\"]\n[[servers]]\nlisten = \"127.0.0.1:0\"\nkeys = {keys:?}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n"
        );
        let file = dir.write("gateway.toml", &text);
        let mut child = program().arg("--config").arg(file).spawn().expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines, dir }
    }

    /// Reads where it listens: for clients, servers and readers of the page.
    fn addrs(&mut self) -> [SocketAddr; 3] {
        ["clients at ", "servers at ", "page at http://"].map(|before| {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("a line");
            let addr = line.strip_prefix(before).unwrap_or_else(|| panic!("{line:?}"));
            addr.trim_end().trim_end_matches('/').parse().expect("an address")
        })
    }

    fn signal(&self, signal: i32) {
        use nix::{
            sys::signal::{Signal, kill},
            unistd::Pid,
        };
        let signal = Signal::try_from(signal).expect("a signal");
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("sent");
    }

    /// Waits for its end. Returns its status and what it has logged.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).expect("a text");
        (status.code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server(addr: SocketAddr, page: SocketAddr, key: &str, id: u32) -> Peer {
    let mut server = Peer::connect(addr);
    server.prove(key.as_bytes(), id);
    wait_until(|| get(page, "/status.json").contains(&format!("\"id\":{id},")));
    server
}

fn get(page: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(page).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {page}\r\nAccept: */*\r\n\r\n").expect("written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a text");
    reply
}

const HUP: i32 = 1;
const TERM: i32 = 15;

#[test]
fn sigterm_closes_the_connections_and_ends_it_with_status_0() {
    let mut running = Running::start("sigterm", "drain = 0.2\n");
    let [clients, servers, page] = running.addrs();
    let mut server = server(servers, page, KEY, 1);
    let mut client = Peer::connect(clients);
    let conns: Vec<u32> = (0..3).map(|_| client.dial(1, &mut server)).collect();
    client.say(conns[0], b"before the end");
    server.expect(&message(conns[0], b"before the end"));
    running.signal(TERM);
    for _ in &conns {
        let close = client.frame();
        assert_eq!(close[..9], [9, 0, 0, 0, 0, 0, 0, 0, 5]);
        server.expect(&close);
    }
    client.expect_silent_end();
    server.expect_silent_end();
    let (status, log) = running.end();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    let mut running = Running::start("twice", "drain = 3600.0\n");
    let [clients, servers, page] = running.addrs();
    let mut server = server(servers, page, KEY, 1);
    let mut client = Peer::connect(clients);
    // One at a time, so that an hour is left for the others.
    let conns: Vec<u32> = (0..3).map(|_| client.dial(1, &mut server)).collect();
    running.signal(TERM);
    let close = client.frame();
    assert!(conns.contains(&u32::from_le_bytes(close[9..13].try_into().expect("an ID"))));
    running.signal(TERM);
    client.expect_end();
    let (status, log) = running.end();
    assert!(status == Some(0) || status == Some(1), "{status:?} {log}");
}

#[test]
fn sighup_reads_keys_and_limits_again_and_drops_no_link() {
    let mut running = Running::start("sighup", "");
    let [clients, servers, page] = running.addrs();
    let mut old = server(servers, page, KEY, 1);
    let mut client = Peer::connect(clients);
    let conn = client.dial(1, &mut old);
    running.dir.write("keys", "another key\n");
    running.signal(HUP);
    let is_taken = || {
        let mut probe = Peer::connect(servers);
        probe.prove(b"another key", 2);
        std::thread::sleep(Duration::from_millis(20));
        get(page, "/status.json").contains("\"id\":2,")
    };
    wait_until(is_taken);
    let mut late = Peer::connect(servers);
    late.prove(KEY.as_bytes(), 3);
    late.expect_silent_end();
    client.say(conn, b"still up");
    old.expect(&message(conn, b"still up"));
    // What cannot be used changes nothing.
    running.dir.write("keys", "");
    running.signal(HUP);
    running.dir.write("keys", "a third key\n");
    running.signal(HUP);
    wait_until(|| {
        let mut probe = Peer::connect(servers);
        probe.prove(b"a third key", 4);
        std::thread::sleep(Duration::from_millis(20));
        get(page, "/status.json").contains("\"id\":4,")
    });
    client.say(conn, b"and now");
    old.expect(&message(conn, b"and now"));
    running.signal(TERM);
    let (status, log) = running.end();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn the_page_shows_who_is_connected() {
    let mut running = Running::start("page", "[log]\nformat = \"json\"\n");
    let [clients, servers, page] = running.addrs();
    let mut server = server(servers, page, KEY, 42);
    let mut client = Peer::connect(clients);
    client.dial(42, &mut server);
    client.command(Command::New);
    client.frame();
    let status = get(page, "/status.json");
    let status: serde_json::Value =
        serde_json::from_str(status.split_once("\r\n\r\n").expect("a head").1).expect("JSON");
    assert_eq!((status["clients"].as_u64(), status["connections"].as_u64()), (Some(1), Some(1)));
    assert_eq!(status["servers"][0]["id"], 42);
    let metrics = get(page, "/metrics");
    assert!(metrics.contains("\nframewire_gateway_server_connections{server=\"42\"} 1\n"), "{metrics}");
    let html = get(page, "/");
    assert!(html.starts_with("HTTP/1.1 200 OK\r\n") && html.ends_with("</html>\n"));
    running.signal(TERM);
    let (status, log) = running.end();
    assert_eq!(status, Some(0));
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line:?}");
    }
}

fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = program().args(args).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_wrong_is_said_and_told_by_the_exit_status() {
    let dir = Dir::new("wrong");
    let (status, error) = refused(&["--config", "/nowhere/gateway.toml"]);
    assert!(status == Some(2) && error.contains("/nowhere/gateway.toml"), "{error}");
    let file = dir.write("gateway.toml", "workers = 1\nworker = 2\n");
    let (status, error) = refused(&["--config", file.to_str().expect("a text")]);
    assert!(status == Some(2) && error.contains("line 2") && error.contains("`worker`"), "{error}");
    let (status, error) = refused(&[]);
    assert!(status == Some(2) && error.contains("no file of keys"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = taken.local_addr().expect("an address").to_string();
    let (status, error) = refused(&["--open-to-all", "--clients", &addr, "--servers", "127.0.0.1:0"]);
    assert!(status == Some(3) && error.contains(&addr), "{error}");
}

#[test]
fn the_printed_configuration_has_every_default_and_can_be_used() {
    let output = program().args(["--print-config", "--open-to-all"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("a text");
    for line in ["workers = 0", "max_length = 524288", "connections_per_client = 16", "ping_interval = 30.0"]
    {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    let dir = Dir::new("printed");
    let file = dir.write("gateway.toml", &text);
    let again = program().args(["--print-config", "--config"]).arg(file).output().expect("it runs");
    assert_eq!(String::from_utf8(again.stdout).expect("a text"), text);
}

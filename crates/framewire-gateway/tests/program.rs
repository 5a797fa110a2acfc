//! The program: its arguments and its file, its signals, its page.
#![cfg(unix)]

mod common;

use std::time::Duration;

use common::{
    KEY, Peer, message,
    running::{Dir, Running, get, program, server},
    wait_until,
};
use framewire_gateway::protocol::Command;

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
    for line in [
        "workers = 0",
        "servers = 1024",
        "max_length = 524288",
        "connections_per_client = 16",
        "ping_interval = 30.0",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    let dir = Dir::new("printed");
    let file = dir.write("gateway.toml", &text);
    let again = program().args(["--print-config", "--config"]).arg(file).output().expect("it runs");
    assert_eq!(String::from_utf8(again.stdout).expect("a text"), text);
}

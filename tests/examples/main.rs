//! Every example, started as a process of its own on a free port and spoken to over a real socket.
#![cfg(unix)]

#[allow(dead_code, reason = "a test needs its framing only")]
#[path = "../../examples/custom_framing.rs"]
mod custom_framing;

mod behind_proxy;
mod chat;
#[cfg(feature = "deflate")]
mod deflate_chat;
mod game;
mod iot_hub;
mod node_watch;
mod program;
#[cfg(feature = "prometheus")]
mod prometheus_endpoint;
mod push;
mod reconnecting_client;
mod resp_server;
#[cfg(feature = "tls")]
mod tls;
mod udp_client;
mod udp_echo;
#[cfg(feature = "websocket")]
mod web_chat;
#[cfg(feature = "websocket")]
#[allow(dead_code, reason = "the tests over sockets need the rest of it")]
#[path = "../common/websocket.rs"]
mod websocket;

use custom_framing::{Cobs, MAX};
use framewire::testing::law;
#[cfg(feature = "websocket")]
use program::PATIENCE;
use program::{Peer, Program};

#[test]
fn echo_sends_each_line_back() {
    let program = Program::start("echo", &["127.0.0.1:0"]);
    let mut peer = program.connect();
    peer.send("hello\nwor");
    peer.expect("hello\n");
    peer.send("ld\r\n\n");
    peer.expect("world\n\n");
}

#[test]
fn blocking_client_prints_the_replies_of_any_server_of_lines() {
    let words = ["hello", "good day", ""];
    for (server, args, replies) in [
        ("echo", &["127.0.0.1:0"][..], words),
        ("blocking_client", &["serve", "127.0.0.1:0"], ["HELLO", "GOOD DAY", ""]),
    ] {
        let program = Program::start(server, args);
        let addr = program.addr.to_string();
        assert_eq!(program::printed("blocking_client", &[&[addr.as_str()][..], &words].concat()), replies);
    }
}

#[test]
fn blocking_client_serves_several_at_once() {
    let program = Program::start("blocking_client", &["serve", "127.0.0.1:0"]);
    let mut peers = [program.connect(), program.connect()];
    for _ in 0..2 {
        for (peer, line) in peers.iter_mut().zip(["one\n", "two\n"]) {
            peer.send(line);
            peer.expect(line.to_uppercase());
        }
    }
}

#[test]
fn proxy_passes_lines_on_as_lengths_and_back_and_so_the_ends() {
    let behind = Program::start("lab_echo", &[]);
    let proxy = Program::start("proxy", &["127.0.0.1:0", &behind.addr.to_string()]);
    let mut peers = [proxy.connect(), proxy.connect(), proxy.connect()];
    for (peer, name) in peers.iter_mut().zip(["one", "two", "three"]) {
        peer.send(format!("{name}\nand"));
        peer.expect(format!("{name}\n"));
    }
    for peer in &mut peers {
        peer.send(" more\n\n");
        peer.expect("and more\n\n");
        peer.send_end();
        peer.expect_end();
    }
}

#[test]
fn proxy_in_its_raw_mode_passes_lengths_on_as_they_are() {
    let behind = Program::start("lab_echo", &[]);
    let proxy = Program::start("proxy", &["127.0.0.1:0", &behind.addr.to_string(), "--raw"]);
    let mut peer = proxy.connect();
    let frames = b"\0\0\0\x03one\0\0\0\0\0\0\0\x03two";
    peer.send(frames);
    peer.expect(frames);
}

#[test]
fn proxy_closes_a_client_for_whom_there_is_no_server() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let proxy = Program::start("proxy", &["127.0.0.1:0", &closed.expect("a free port").to_string()]);
    let mut peer = proxy.connect();
    peer.send("anybody?\n");
    peer.expect_end();
}

/// What a framing puts on the wire for the payload `ab`.
const LAB_FRAMES: &[(&str, &[u8])] = &[
    ("u8", b"\x02ab"),
    ("u16be", b"\0\x02ab"),
    ("u16le", b"\x02\0ab"),
    ("u24be", b"\0\0\x02ab"),
    ("u24le", b"\x02\0\0ab"),
    ("u32be", b"\0\0\0\x02ab"),
    ("u32le", b"\x02\0\0\0ab"),
    ("u64be", b"\0\0\0\0\0\0\0\x02ab"),
    ("u64le", b"\x02\0\0\0\0\0\0\0ab"),
    ("line", b"ab\n"),
    ("crlf", b"ab\r\n"),
    ("nul", b"ab\0"),
    ("sep:0aFf", b"ab\n\xff"),
    ("varint", b"\x02ab"),
    ("netstring", b"2:ab,"),
    ("raw", b"ab"),
];

#[test]
fn lab_echo_speaks_every_framing() {
    for (framing, frame) in LAB_FRAMES {
        let program = Program::start("lab_echo", &["--framing", framing]);
        let mut peer = program.connect();
        peer.send(frame);
        peer.expect(frame);
        peer.send(frame.repeat(3));
        peer.expect(frame.repeat(3));
    }
}

#[test]
fn lab_echo_answers_a_whole_stream_at_its_end() {
    let program = Program::start("lab_echo", &["--framing", "eof"]);
    let mut peer = program.connect();
    peer.send("all ");
    peer.send("of it");
    peer.send_end();
    peer.expect("all of it");
    peer.expect_end();
}

#[test]
fn lab_echo_serves_with_every_strategy_and_ends_gracefully() {
    let services = ["--services", "2"];
    for args in [["--strategy", "single"], ["--strategy", "pool"], ["--strategy", "threads"], services] {
        let program = Program::start("lab_echo", &[&args[..], &["--threads", "2"]].concat());
        let mut peers = [program.connect(), program.connect()];
        for peer in &mut peers {
            peer.send(b"\0\0\0\x01x");
            peer.expect(b"\0\0\0\x01x");
        }
        program.terminate();
        for mut peer in peers {
            peer.expect_end();
        }
        let printed = program.finish();
        assert!(printed.is_empty(), "{args:?}: {printed:?}");
    }
}

#[test]
fn lab_echo_sends_to_every_connection_in_its_broadcast_mode() {
    let program = Program::start("lab_echo", &["--mode", "broadcast", "--framing", "line"]);
    let mut one = program.connect();
    one.send("one\n");
    one.expect("one\n");
    let mut other = program.connect();
    other.send("other\n");
    other.expect("other\n");
    one.expect("other\n");
}

#[test]
fn lab_echo_passes_packets_on_between_two_connections_in_its_link_mode() {
    let program = Program::start("lab_echo", &["--mode", "link", "--framing", "line"]);
    let (mut one, mut other) = (program.connect(), program.connect());
    one.send("one\n");
    other.expect("one\n");
    other.send("other\n");
    one.expect("other\n");
}

#[test]
fn lab_echo_takes_a_payload_of_its_maximum_and_not_one_byte_more() {
    let program = Program::start("lab_echo", &["--max", "5000000"]);
    let frame = [&5_000_000_u32.to_be_bytes()[..], &vec![7; 5_000_000]].concat();
    let mut peer = program.connect();
    peer.send(&frame);
    peer.expect(&frame);
    peer.send(5_000_001_u32.to_be_bytes());
    peer.expect_end();
}

#[test]
fn custom_framing_answers_in_its_own_frames() {
    let program = Program::start("custom_framing", &["127.0.0.1:0"]);
    let mut peer = program.connect();
    let frames = b"\x03\x11\x22\x02\x33\0\x01\0\x01\x01\0";
    peer.send(&frames[..4]);
    peer.send(&frames[4..]);
    peer.expect(frames);
    peer.send(b"\x05\x11\0");
    peer.expect_end();
}

#[test]
fn custom_framing_keeps_the_law() {
    law::check(Cobs::default(), [&b"\x11\x22\0\x33"[..], b"", b"\0\0", &[7; 254], &[7; 255], &[0; MAX]]);
}

/// A packet behind its length in two bytes.
fn framed(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn ask(peer: &mut Peer, request: &str, reply: &str) {
    peer.send(framed(request));
    peer.expect(framed(reply));
}

#[cfg(feature = "json")]
#[test]
fn json_rpc_replies_to_requests_and_says_what_is_wrong_with_others() {
    let program = Program::start("json_rpc", &["127.0.0.1:0"]);
    let mut peer = program.connect();
    for (request, reply) in [
        (r#"{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}"#, r#""result":3,"id":1}"#),
        (
            r#"{"jsonrpc": "2.0", "method": "\u006dax", "params": [-5, -7], "id": 2}"#,
            r#""result":-5,"id":2}"#,
        ),
        (
            r#"{"method": "max", "id": 3}"#,
            r#""error":{"code":-32602,"message":"no numbers, or too large ones"},"id":3}"#,
        ),
        (r#"{"method": "drop", "id": 4}"#, r#""error":{"code":-32601,"message":"no such method"},"id":4}"#),
        (
            r#"{"method": 7}"#,
            r#""error":{"code":-32700,"message":"invalid type: integer `7`, expected a string at line 1 column 12"},"id":null}"#,
        ),
    ] {
        peer.send(format!("{request}\n"));
        peer.expect(format!("{{\"jsonrpc\":\"2.0\",{reply}\n"));
    }
    peer.send("{\"method\": \"add\", \"params\": [1]}\n");
    peer.send("{\"method\": \"add\", \"params\": [1], \"id\": 6}\n");
    peer.expect("{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":6}\n");
}

#[test]
fn request_reply_answers_what_fits_the_state_and_refuses_the_rest() {
    let program = Program::start("request_reply", &["127.0.0.1:0", "127.0.0.1:0"]);
    let mut peer = program.connect();
    ask(&mut peer, "ADD 1", "ERROR not now");
    ask(&mut peer, "HELLO 1", "HELLO 1");
    ask(&mut peer, "LOGIN ann guess", "DENIED 2 tries left");
    ask(&mut peer, "LOGIN ann secret", "WELCOME");
    ask(&mut peer, "HELLO 1", "ERROR not now");
    ask(&mut peer, "ADD 42", "SUM 42");
    ask(&mut peer, "ADD -2", "SUM 40");
    ask(&mut peer, "ADD 9223372036854775807", "ERROR no number");
    peer.send(framed("QUIT"));
    peer.expect_end();
}

#[test]
fn request_reply_closes_after_three_wrong_passwords() {
    let program = Program::start("request_reply", &["127.0.0.1:0", "127.0.0.1:0"]);
    let mut peer = program.connect();
    ask(&mut peer, "HELLO 1", "HELLO 1");
    for left in ["2", "1", "0"] {
        ask(&mut peer, "LOGIN ann guess", &format!("DENIED {left} tries left"));
    }
    peer.expect_end();
}

#[test]
fn request_reply_takes_typed_lines_at_its_other_port() {
    let program = Program::start("request_reply", &["127.0.0.1:0", "127.0.0.1:0"]);
    let at = program.printed[0].strip_prefix("typed requests at ").expect("it says where");
    let mut peer = Peer::connect(at.parse().expect("an address"));
    peer.send("HELLO 1\nLOGIN ann secret\nADD 42\nQUIT\n");
    peer.expect("HELLO 1\nWELCOME\nSUM 42\n");
    peer.expect_end();
}

#[test]
fn upgrade_gives_the_bytes_behind_the_login_to_the_new_framing() {
    let program = Program::start("upgrade", &["127.0.0.1:0"]);
    let mut peer = program.connect();
    peer.send(b"LOGIN ann\n\0\0\0\x02h\n\0\0");
    peer.expect(b"LOGIN please\nOK\n\0\0\0\x03ann\0\0\0\x02h\n");
    peer.send(b"\0\x01!");
    peer.expect(b"\0\0\0\x03ann\0\0\0\x01!");
    let mut stranger = program.connect();
    stranger.send("hello\n");
    stranger.expect("LOGIN please\nNO\n");
    stranger.expect_end();
}

#[test]
fn strategies_all_serve() {
    for (strategy, shards) in
        [("single", &["0"][..]), ("pool", &["1", "2"]), ("reuse-port", &["1", "2"]), ("threads", &["3", "4"])]
    {
        let program = Program::start("strategies", &[strategy, "127.0.0.1:0"]);
        let mut peers = [program.connect(), program.connect()];
        for peer in &mut peers {
            peer.send("hi\n");
            let answer = peer.line();
            let shard = answer.strip_prefix("shard ").unwrap_or_else(|| panic!("{strategy}: {answer:?}"));
            assert!(strategy == "threads" || shards.contains(&shard), "{strategy}: shard {shard}");
        }
        drop(peers);
        program.terminate();
        program.finish();
    }
}

#[test]
fn strategies_of_a_user_place_by_address_refuse_past_the_quota_and_know_the_end() {
    let program = Program::start("strategies", &["by-peer", "127.0.0.1:0"]);
    assert_eq!(program.printed, ["by-peer starts: 1 address, 2 workers"]);
    let mut peers: Vec<_> = (0..4).map(|_| program.connect()).collect();
    let mut answers = Vec::new();
    for peer in &mut peers {
        peer.send("hi\n");
        answers.push(peer.line());
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0] && answer.starts_with("shard ")),
        "{answers:?}"
    );
    program.expect_refusal();
    drop(peers);
    program.terminate();
    assert_eq!(program.finish(), ["by-peer stops"]);
}

#[test]
fn admin_port_lists_tells_and_closes_the_users_of_the_other_port() {
    let program = Program::start("admin_port", &["127.0.0.1:0", "127.0.0.1:0"]);
    let at = program.printed[0].strip_prefix("administrators at ").expect("it says where");
    let mut admin = Peer::connect(at.parse().expect("an address"));
    let mut users = [program.connect(), program.connect()];
    for user in &mut users {
        user.send(b"\0\0\0\x02hi");
        user.expect(b"\0\0\0\x02hi");
    }
    admin.send("users\n");
    let listed = [admin.line(), admin.line(), admin.line()];
    assert!(listed[0].starts_with("1 127.0.0.1:") && listed[1].starts_with("2 127.0.0.1:"), "{listed:?}");
    assert_eq!(listed[2], "2 users");
    admin.send("say goodbye\nkick 1\nkick 7\n");
    assert_eq!(admin.line(), "told 2 users");
    assert!(admin.line().starts_with("closing 127.0.0.1:"));
    assert_eq!(admin.line(), "no user \"7\"");
    for user in &mut users {
        user.expect(b"\0\0\0\x07goodbye");
    }
    let [mut first, mut second] = users;
    let is_first = listed[0].contains(&first.addr().to_string());
    if is_first { first.expect_end() } else { second.expect_end() }
}

#[test]
fn graceful_shutdown_says_goodbye_and_tells_the_figures() {
    let program = Program::start("graceful_shutdown", &["127.0.0.1:0"]);
    let mut peers = [program.connect(), program.connect()];
    for peer in &mut peers {
        peer.send("hello\n");
        peer.expect("HELLO\n");
    }
    program.terminate();
    for mut peer in peers {
        peer.expect("goodbye\n");
        peer.expect_end();
    }
    let figures = ["2 sessions, 2 closed by the shutdown", "2 packets in, 4 packets out"];
    assert_eq!(program.finish(), figures);
}

//! `examples/resp_server` with the tools of Redis, and with hostile bytes.

#[path = "../../examples/resp_server/framing.rs"]
mod framing;

use std::{
    io::{self, Write},
    process::Command,
};

use bytes::BytesMut;
use framewire::{Decoded, FrameError, Framing, testing::law};
use framing::{Arguments, Resp, bulk};

use crate::program::{PATIENCE, Program};

fn server(args: &[&str]) -> Program {
    Program::start("resp_server", &[&["--port", "0"], args].concat())
}

fn request(args: &[&str]) -> Vec<u8> {
    let mut wire = format!("*{}\r\n", args.len());
    for arg in args {
        wire += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    wire.into_bytes()
}

/// The output of a tool; `None`, with a line that says so, where it is not installed.
fn tool(name: &str, program: &Program, args: &[&str]) -> Option<String> {
    let port = program.addr.port().to_string();
    let out = match Command::new(name).args(["-h", "127.0.0.1", "-p", &port]).args(args).output() {
        Ok(out) => out,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Past the test runner, which would keep it to itself.
            let _ = writeln!(io::stderr(), "SKIPPED: {name} is not installed (package redis-tools)");
            return None;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name} {args:?}: {} {text} {complaint}", out.status);
    assert!(!complaint.to_lowercase().contains("error"), "{name} {args:?}: {complaint}");
    Some(text)
}

#[test]
fn redis_cli_reads_what_it_wrote() {
    let program = server(&[]);
    let cli = |args: &[&str]| tool("redis-cli", &program, args).map(|text| text.trim_end().to_owned());
    let Some(pong) = cli(&["ping"]) else { return };
    assert_eq!(pong, "PONG");
    for (args, answer) in [
        (&["set", "greeting", "hello"][..], "OK"),
        (&["get", "greeting"], "hello"),
        (&["set", "greeting", "again", "nx"], ""),
        (&["set", "greeting", "again", "xx", "ex", "100"], "OK"),
        (&["mset", "a", "1", "b", "2"], "OK"),
        (&["mget", "a", "none", "b"], "1\n\n2"),
        (&["incrby", "a", "41"], "42"),
        (&["decr", "a"], "41"),
        (&["incr", "greeting"], "ERR value is not an integer or out of range"),
        (&["exists", "a", "a", "none"], "2"),
        (&["del", "a", "b", "none"], "2"),
        (&["dbsize"], "1"),
        (&["config", "get", "save"], "save"),
        (&["-n", "0", "echo", "with spaces\nand lines"], "with spaces\nand lines"),
        (&["flushall"], "OK"),
        (&["dbsize"], "0"),
        (&["get"], "ERR wrong number of arguments for 'get' command"),
        (&["nonsense"], "ERR unknown command 'nonsense'"),
    ] {
        assert_eq!(cli(args).as_deref(), Some(answer), "{args:?}");
    }
    // A tool that takes its time to start may find some of it over.
    assert_eq!(cli(&["set", "brief", "x", "ex", "10000"]).as_deref(), Some("OK"));
    let left = cli(&["ttl", "brief"]).and_then(|left| left.parse().ok());
    assert!(left.is_some_and(|left: u32| (9_000..=10_000).contains(&left)), "{left:?}");
    let info = cli(&["info"]).unwrap_or_default();
    assert!(info.contains("redis_version:"), "{info}");
}

#[test]
fn redis_benchmark_finishes_without_an_error() {
    for threads in ["1", "2"] {
        let program = server(&["--threads", threads]);
        for pipeline in ["1", "16"] {
            let tests = "ping,set,get,incr,mset";
            let args = ["-t", tests, "-n", "3000", "-c", "20", "-r", "100", "-P", pipeline, "--csv"];
            let Some(report) = tool("redis-benchmark", &program, &args) else { return };
            for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
                assert!(report.contains(&format!("\"{test}\",")), "no {test} in {report}");
            }
        }
    }
}

#[test]
fn requests_in_one_write_are_answered_in_order() {
    let program = server(&[]);
    let mut peer = program.connect();
    let requests = [
        request(&["SET", "k", "v"]),
        b"get k\r\n\r\nPING\n".to_vec(),
        b"*0\r\n".to_vec(),
        request(&["GET", "none"]),
        request(&["QUIT"]),
        request(&["PING"]),
    ];
    peer.send(requests.concat());
    peer.expect("+OK\r\n$1\r\nv\r\n+PONG\r\n$-1\r\n+OK\r\n");
    peer.expect_end();
}

#[test]
fn a_key_is_gone_when_its_time_is_over() {
    let program = server(&[]);
    let mut peer = program.connect();
    peer.send(request(&["SET", "k", "v", "PX", "1"]));
    peer.expect("+OK\r\n");
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        peer.send(request(&["EXISTS", "k"]));
        if peer.line() == ":0" {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the key is still there");
    }
    peer.send([request(&["SET", "k", "w", "NX"]), request(&["GET", "k"])].concat());
    peer.expect("+OK\r\n$1\r\nw\r\n");
    for bad in [["EX", "0"], ["PX", "-1"], ["EX", "9223372036854775807"], ["EX", "01"]] {
        peer.send(request(&["SET", "k", "x", bad[0], bad[1]]));
        assert!(peer.line().starts_with("-ERR"), "{bad:?}");
    }
}

/// What a client may say to make a number of the server's overflow: every command that counts or tells the time.
#[test]
fn the_largest_numbers_are_answered_and_end_nothing() {
    let program = server(&[]);
    let mut peer = program.connect();
    let (most, least) = (i64::MAX.to_string(), i64::MIN.to_string());
    let seconds = (i64::MAX / 1000).to_string();
    for (unit, time) in [("PX", &most), ("EX", &seconds)] {
        peer.send(request(&["SET", "k", "v", unit, time]));
        peer.expect("+OK\r\n");
        for ask in ["TTL", "PTTL"] {
            peer.send(request(&[ask, "k"]));
            let left: i64 = peer.line().trim_start_matches(':').parse().expect("a number");
            let whole = if ask == "TTL" { i64::MAX / 1000 } else { i64::MAX };
            // A day is more than this test takes, and less than what an overflow would be off by.
            assert!(whole - left < 86_400_000, "{ask} after {unit} {time}: {left}");
        }
        peer.send(request(&["INCR", "k"]));
        assert!(peer.line().starts_with("-ERR"), "it is no number");
    }
    for (unit, time) in [("PX", &least), ("EX", &least), ("EX", &most)] {
        peer.send(request(&["SET", "k", "v", unit, time]));
        assert!(peer.line().starts_with("-ERR invalid expire time"), "{unit} {time}");
    }
    for (value, command, delta) in
        [(&most, "INCRBY", "1"), (&least, "DECRBY", "1"), (&least, "INCRBY", &least)]
    {
        peer.send([request(&["SET", "n", value]), request(&[command, "n", delta])].concat());
        peer.expect("+OK\r\n");
        assert!(peer.line().ends_with("would overflow"), "{command} {delta} of {value}");
    }
    peer.send([request(&["SET", "n", "0"]), request(&["DECRBY", "n", &least])].concat());
    peer.expect("+OK\r\n");
    assert!(peer.line().ends_with("would overflow"), "there is no number to subtract it from");
    peer.send([request(&["INCRBY", "n", &least]), request(&["PING"])].concat());
    peer.expect(format!(":{least}\r\n+PONG\r\n"));
}

#[test]
fn a_full_store_refuses_writes_and_serves_reads() {
    let program = server(&["--max-memory", "1000"]);
    let mut peer = program.connect();
    let big = "x".repeat(800);
    peer.send([request(&["SET", "big", &big]), request(&["SET", "more", &big])].concat());
    peer.expect("+OK\r\n");
    assert!(peer.line().starts_with("-OOM"));
    peer.send([request(&["MSET", "a", "1", "b", "2"]), request(&["DBSIZE"])].concat());
    assert!(peer.line().starts_with("-OOM"));
    peer.expect(":1\r\n");
    peer.send(
        [request(&["SET", "big", "y"]), request(&["SET", "more", "z"]), request(&["GET", "more"])].concat(),
    );
    peer.expect("+OK\r\n+OK\r\n$1\r\nz\r\n");
}

#[test]
fn counting_from_many_sessions_of_many_threads_loses_nothing() {
    let program = server(&["--threads", "3"]);
    let mut peers: Vec<_> = (0..6).map(|_| program.connect()).collect();
    for peer in &mut peers {
        peer.send(request(&["INCR", "n"]).repeat(500));
    }
    for peer in &mut peers {
        for _ in 0..500 {
            assert!(peer.line().starts_with(':'));
        }
    }
    peers[0].send(request(&["GET", "n"]));
    peers[0].expect("$4\r\n3000\r\n");
}

#[test]
fn hostile_bytes_end_their_session_and_no_other() {
    let program = server(&[]);
    let mut friend = program.connect();
    for bytes in [
        &b"*4294967296\r\n"[..],
        b"*-1\r\n",
        b"*1\r\n$18446744073709551616\r\n",
        b"*1\r\n*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$4\r\nECHO\r\n:1\r\n",
        b"*1\r\n$2\r\nPING\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        &[b'a'; 70_000],
    ] {
        let mut peer = program.connect();
        peer.send(bytes);
        peer.expect_end();
        friend.send("PING\r\n");
        friend.expect("+PONG\r\n");
    }
}

/// Feeds a stream in pieces, as a session does.
fn packets(pieces: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut framing = Resp::new();
    framing.offer_max(max);
    let (mut held, mut packets) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            match framing.decode(&mut held)? {
                None => break,
                Some(Decoded::Packet { payload, consumed }) => {
                    packets.push(held[payload].to_vec());
                    held.drain(..consumed);
                }
                Some(Decoded::Skipped { consumed }) => drop(held.drain(..consumed)),
                Some(other) => panic!("{other:?}"),
            }
        }
        assert!(held.len() <= max, "{} bytes are held", held.len());
    }
    Ok(packets)
}

#[test]
fn a_request_is_the_same_wherever_it_is_cut() {
    let requests =
        [request(&["SET", "k", ""]), b"PING a\r\n".to_vec(), request(&["ECHO", "\r\n$1"]), b"\n".to_vec()];
    let stream = requests.concat();
    for first in 0..stream.len() {
        for second in first..stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(packets(&pieces, 100).as_deref(), Ok(&requests[..]), "{first}, {second}");
        }
    }
}

#[test]
fn the_framing_keeps_the_law() {
    let mut framing = Resp::new();
    framing.offer_max(1000);
    let long = "x".repeat(900);
    law::check(framing.clone(), [request(&["PING"]), b"PING x\r\n".to_vec(), request(&["GET", ""])]);
    law::check(framing, [request(&["SET", "k", &long]), request(&["PING"; 90]), b" \n".to_vec()]);
}

#[test]
fn a_request_of_the_maximum_passes_and_a_longer_one_is_refused_before_it_is_held() {
    let whole = request(&["ECHO", &"x".repeat(50)]);
    assert_eq!(packets(&[&whole], whole.len()).map(|packets| packets.len()), Ok(1));
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(packets(&bytes, whole.len()).map(|packets| packets.len()), Ok(1));
    let early = &bytes[..whole.len() - 52];
    assert!(matches!(packets(early, whole.len() - 1), Err(FrameError::TooLong { .. })));
    assert!(matches!(packets(&[b"*3"], 10), Err(FrameError::TooLong { len: 22, max: 10, .. })));
    let mut out = BytesMut::new();
    assert!(Resp::new().encode(&vec![0; (1 << 20) + 1], &mut out).is_err() && out.is_empty());
}

#[test]
fn arguments_are_found_in_place() {
    let array = request(&["SET", "a key", ""]);
    assert_eq!(Arguments::of(&array).collect::<Vec<_>>(), [&b"SET"[..], b"a key", b""]);
    assert_eq!(Arguments::of(b" SET  key\tv\r\n").collect::<Vec<_>>(), [&b"SET"[..], b"key", b"v"]);
    assert_eq!(Arguments::of(b"\r\n").count(), 0);
    assert_eq!(bulk(b"$2\r\nab\r\nrest"), Some((&b"ab"[..], &b"rest"[..])));
}

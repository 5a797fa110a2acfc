//! Every example, started as a process on a free port and spoken to over a real socket.
#![cfg(unix)]

#[allow(dead_code, reason = "a test needs its framing only")]
#[path = "../examples/custom_framing.rs"]
mod custom_framing;
#[path = "support/program.rs"]
mod program;

use custom_framing::{Cobs, MAX};
use framewire::testing::law;
use program::Program;

#[test]
fn every_example_is_run_by_a_test() {
    let tests = concat!(include_str!("examples.rs"), include_str!("redis.rs"));
    let entries = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"));
    let entries = entries.expect("examples/ is there").map(|entry| entry.expect("readable").path());
    let names: Vec<_> = entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    assert!(names.len() > 1, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("Program::start(\"{name}\"")), "no test starts examples/{name}.rs");
    }
}

#[test]
fn echo_sends_each_line_back() {
    let program = Program::start("echo", &["127.0.0.1:0"]);
    let mut peer = program.connect();
    peer.send("hello\nwor");
    peer.expect("hello\n");
    peer.send("ld\r\n\n");
    peer.expect("world\n\n");
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
    for args in [["--strategy", "single"], ["--strategy", "pool"], ["--strategy", "threads"]] {
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

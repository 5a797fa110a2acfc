//! `framewire echo` and `framewire probe`, one against the other and against plain sockets.
#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_framewire");

/// An echo on a free port; ends with the test.
struct Echo {
    child: Child,
    addr: String,
}

impl Echo {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["echo", "127.0.0.1:0"]).args(args).stdout(Stdio::piped());
        Self::listening(command.spawn().expect("it runs"))
    }

    fn listening(mut child: Child) -> Self {
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, addr }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn probe(addr: &str, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(["probe", addr])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let _ = child.stdin.take().expect("its input").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_line_of_input_comes_back_as_a_packet_whatever_the_framing() {
    for framing in ["u32-be", "u16le", "varint", "lines", "crlf", "sep:0d0a0d0a", "netstring", "nul"] {
        let echo = Echo::start(&["--framing", framing]);
        let output = probe(&echo.addr, &["--framing", framing], b"one\ntwo words\n\nlast");
        assert_eq!(text(&output.stdout), "one\ntwo words\n\nlast\n", "{framing}: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{framing}");
        assert!(text(&output.stderr).contains("closed by the peer"), "{framing}: it learned of our end");
    }
}

#[test]
fn every_strategy_serves() {
    for strategy in ["single", "pool", "threads"] {
        let echo = Echo::start(&["--strategy", strategy]);
        let output = probe(&echo.addr, &["-f", "u32-be", "--send", "hello", "--count", "1"], b"");
        assert_eq!(text(&output.stdout), "hello\n", "{strategy}");
    }
}

#[test]
fn bytes_are_sent_and_shown_as_hex() {
    let echo = Echo::start(&["--framing", "u8"]);
    let args = ["-f", "u8", "--send-hex", "00 ff 0a", "--show", "hex", "-n", "1"];
    assert_eq!(text(&probe(&echo.addr, &args, b"").stdout), "00 ff 0a\n");
    let args = ["-f", "u8", "--hex-input", "--show", "both"];
    assert_eq!(text(&probe(&echo.addr, &args, b"6869\n").stdout), "     2  68 69  |hi|\n");
}

#[test]
fn what_the_framing_can_not_be_is_an_error_with_a_hint() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its number").to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"SSH-2.0-x\r\n").expect("it is read");
        let _ = stream.read(&mut [0; 16]);
    });
    let output = probe(&addr, &["-f", "u32-be"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("this looks like an SSH greeting"), "{}", text(&output.stderr));
    peer.join().expect("the peer is fine");
}

#[test]
fn an_end_within_a_packet_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its number").to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"\0\0\0\x09half").expect("it is read");
        stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        let _ = stream.read(&mut [0; 16]);
    });
    let output = probe(&addr, &["-f", "u32-be"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("stream ended inside a frame"), "{}", text(&output.stderr));
    peer.join().expect("the peer is fine");
}

#[test]
fn a_peer_that_stays_open_is_left_after_the_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its number").to_string();
    let output = probe(&addr, &["-f", "lines", "--wait", "0.1", "--send", "x"], b"");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("did not close within 0.1 s"));
    let (stream, _) = listener.accept().expect("it had connected");
    let mut sent = String::new();
    (&stream).read_to_string(&mut sent).expect("it has closed");
    assert_eq!(sent, "x\n");
}

#[test]
fn a_line_that_is_no_packet_is_not_sent() {
    let echo = Echo::start(&["--framing", "u8"]);
    let output = probe(&echo.addr, &["-f", "u8"], &[b'x'; 300]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("not sent: frame of 300 bytes"), "{}", text(&output.stderr));
    let output = probe(&echo.addr, &["-f", "u8", "--hex-input"], b"no hex\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_a_peer_said_before_it_took_no_more_is_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its number").to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"bad command\n").expect("it is read");
        // gone with input unread, more than the kernel holds: the probe finds out while it sends
        stream.read_exact(&mut [0]).expect("a byte");
    });
    let output = probe(&addr, &["-f", "lines"], &b"some command\n".repeat(1_000_000));
    assert_eq!(text(&output.stdout), "bad command\n", "{}", text(&output.stderr));
    // sending and receiving learn of the end at the same time: whoever is first tells of it as an end or as an error
    assert_ne!(output.status.code(), Some(2), "it could begin: {}", text(&output.stderr));
    peer.join().expect("the peer is fine");
}

#[test]
#[cfg(unix)]
fn a_unix_socket_is_served_and_probed() {
    let path = std::env::temp_dir().join(format!("framewire-probe-{}.sock", std::process::id()));
    let addr = format!("unix:{}", path.display());
    let mut command = Command::new(PROGRAM);
    let child = command.args(["echo", &addr]).stdout(Stdio::piped()).spawn().expect("it runs");
    let echo = Echo::listening(child);
    assert_eq!(echo.addr, addr);
    let output = probe(&addr, &["-f", "u32-be", "--send", "hello"], b"");
    assert_eq!(text(&output.stdout), "hello\n", "{}", text(&output.stderr));
    drop(echo);
    let _ = std::fs::remove_file(path);
}

#[test]
fn nobody_there_a_taken_port_and_an_unknown_framing_are_said() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its number").to_string();
    let output = Command::new(PROGRAM).args(["echo", &addr]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(&format!("can not bind {addr}")), "{}", text(&output.stderr));
    drop(taken);
    let output = probe(&addr, &["-f", "lines"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(&format!("can not connect to {addr}")));
    let output = probe(&addr, &["-f", "u31"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no framing \"u31\""));
}

#[test]
fn an_echo_keeps_to_the_maximum_it_was_given() {
    let echo = Echo::start(&["--framing", "u32-be", "--max", "4"]);
    let mut stream = TcpStream::connect(&echo.addr).expect("it listens");
    stream.write_all(b"\0\0\0\x04four\0\0\0\x05").expect("it reads");
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    assert_eq!(back, b"\0\0\0\x04four");
}

#[test]
fn help_tells_of_every_command_and_of_no_hidden_one() {
    let help = text(&Command::new(PROGRAM).arg("--help").output().expect("it runs").stdout);
    for command in ["bench", "echo", "probe"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(!help.contains("serve-contestant") && !help.contains("keep "), "{help}");
}

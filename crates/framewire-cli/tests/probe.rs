//! `framewire echo` and `framewire probe`, one against the other and against plain sockets.
#![allow(clippy::print_stderr, reason = "a test that has to skip says so")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_framewire");

/// An echo on a free port; ends with the test.
struct Echo {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
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
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        out.read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, out: Some(out), addr }
    }

    /// The next line that it shows, without its time.
    fn shown(&mut self) -> String {
        let mut line = String::new();
        let out = self.out.as_mut().expect("its output");
        out.read_line(&mut line).expect("a line");
        untimed(&line)
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

/// A peer for one connection; its address, and a wait for its end.
fn peer(serve: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its number").to_string();
    let thread = std::thread::spawn(move || serve(listener.accept().expect("a connection").0));
    (addr, thread)
}

/// A traced line without its seconds, which are a number.
fn untimed(line: &str) -> String {
    let (time, rest) = line.trim().split_once(' ').unwrap_or_default();
    time.parse::<f64>().unwrap_or_else(|error| panic!("{line:?}: {error}"));
    rest.to_owned()
}

/// A probe whose input is at its end only when its first line of output has come, so that no wait can be over before.
fn probe_after_first(addr: &str, args: &[&str], input: &[u8], first: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["probe", addr]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut keys = child.stdin.take().expect("its input");
    keys.write_all(input).expect("it is read");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert_eq!(line.trim_end(), first);
    drop(keys);
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
fn what_the_framing_cannot_be_is_an_error_with_a_hint() {
    let (addr, peer) = peer(|mut stream| {
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
    let (addr, peer) = peer(|mut stream| {
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
    assert!(text(&output.stderr).contains("not sent: payload of 300 bytes"), "{}", text(&output.stderr));
    let output = probe(&echo.addr, &["-f", "u8", "--hex-input"], b"no hex\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_a_peer_said_before_it_took_no_more_is_shown() {
    let (addr, peer) = peer(|mut stream| {
        stream.write_all(b"bad command\n").expect("it is read");
        // gone with input unread, more than the kernel holds: the probe finds out while it sends
        stream.read_exact(&mut [0]).expect("a byte");
    });
    let output = probe(&addr, &["-f", "lines"], &b"some command\n".repeat(1_000_000));
    assert_eq!(text(&output.stdout), "bad command\n", "{}", text(&output.stderr));
    // sending and receiving learn of the end at the same time: the first of them tells of it as an end or as an error
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
    assert!(text(&output.stderr).contains(&format!("cannot bind {addr}")), "{}", text(&output.stderr));
    drop(taken);
    let output = probe(&addr, &["-f", "lines"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(&format!("cannot connect to {addr}: Connection refused")));
    let output = probe(&addr, &["-f", "u31"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no framing \"u31\"; there are u8,"));
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
fn fewer_packets_than_asked_for_are_an_error() {
    for (stays, wait, why) in [(false, "60", "closed by the peer"), (true, "0.1", "did not close")] {
        let (addr, peer) = peer(move |mut stream| {
            stream.write_all(b"one\n").expect("it is read");
            if stays {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let args = ["-f", "lines", "-n", "2", "-w", wait, "--keep-open"];
        let output = probe_after_first(&addr, &args, b"", "one");
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains(why) && said.contains("1 of 2 packets came"), "{said}");
        peer.join().expect("the peer is fine");
    }
}

#[test]
fn a_line_that_is_no_packet_is_reported_with_its_number_and_the_next_one_is_sent() {
    let echo = Echo::start(&["--framing", "u8"]);
    let output = probe(&echo.addr, &["-f", "u8", "--hex-input"], b"63\n0x6g\n646\n64\n");
    assert_eq!((text(&output.stdout), output.status.code()), ("c\nd\n".into(), Some(2)));
    let said = text(&output.stderr);
    assert!(said.contains("line 2 was not sent: 'g' at character 4"), "{said}");
    assert!(said.contains("line 3 was not sent: '6' at character 3"), "{said}");
    assert!(said.contains("lines of input left out: 2"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_typing_error_neither_ends_a_session_at_a_terminal_nor_fails_it() {
    let echo = Echo::start(&["--framing", "u8"]);
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{PROGRAM} probe {} -f u8 --hex-input", echo.addr), "/dev/null"]);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        eprintln!("skipped: there is no `script` to give the probe a terminal");
        return;
    };
    let mut keys = child.stdin.take().expect("its input");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut seen = |what: &str| {
        let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(what)));
        assert!(found.is_some(), "{what:?} was not shown");
    };
    seen("connected to");
    keys.write_all(b"0x6g\n").expect("it is read");
    seen("line 1 was not sent: 'g' at character 4");
    keys.write_all(b"78797a\n").expect("it is read");
    seen("xyz");
    keys.write_all(b"\x04").expect("it is read");
    seen("closed by the peer");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn texts_and_hex_are_sent_in_the_order_in_which_they_are_given() {
    let echo = Echo::start(&["--framing", "lines"]);
    let args = "-f lines --send a --send-hex 62 --send -c --send-hex 0x6465 --send f --send-hex 67:68";
    let output = probe(&echo.addr, &args.split(' ').collect::<Vec<_>>(), b"");
    assert_eq!(text(&output.stdout), "a\nb\n-c\nde\nf\ngh\n", "{}", text(&output.stderr));
}

#[test]
fn a_packet_that_cannot_be_sent_is_told_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its number").to_string();
    let output = probe(&addr, &["-f", "fixed:2", "--send", "ok", "--send-hex", "63"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("packet 2 cannot be sent"), "{}", text(&output.stderr));
    listener.set_nonblocking(true).expect("a listener can");
    assert!(listener.accept().is_err(), "there was no connection");
}

#[test]
fn a_trace_tells_what_went_which_way_and_when() {
    let echo = Echo::start(&["--framing", "u32-be"]);
    let long = "y".repeat(300);
    let args = ["-f", "u32-be", "--trace", "--send", "a\x1b[2J", "--send", &long];
    let output = probe(&echo.addr, &args, b"");
    let stdout = text(&output.stdout);
    let lines: Vec<_> = stdout.lines().map(untimed).collect();
    let long = format!("   300  {} ... (44 more bytes)", "y".repeat(256));
    let packets = ["     5  a\\x1b[2J", &long, "   end"];
    let (sent, received): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with('>'));
    assert_eq!(sent, packets.map(|packet| format!("> {packet}")).each_ref());
    assert_eq!(received, packets.map(|packet| format!("< {packet}")).each_ref());
    assert!(lines[0].starts_with('>'), "a packet stands before its reply: {stdout}");
    let times: Vec<f64> = stdout.lines().map(|line| line[..11].trim().parse().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn the_peer_learns_of_the_end_of_the_input_unless_this_side_is_kept_open() {
    let echo = Echo::start(&["--framing", "lines"]);
    let args = ["-f", "lines", "--wait", "0.2", "--keep-open"];
    let output = probe_after_first(&echo.addr, &args, b"hello\n", "hello");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("did not close within 0.2 s"), "{}", text(&output.stderr));
    let output = probe(&echo.addr, &["-f", "lines", "--keep-open", "-n", "1"], b"hello\n");
    assert_eq!((text(&output.stdout), output.status.code()), ("hello\n".into(), Some(0)));
}

#[test]
fn a_peer_that_stops_within_a_frame_is_an_error_with_what_came() {
    let (addr, peer) = peer(|mut stream| {
        stream.write_all(b"\0\0\0\x02hi\0\0\0\x09half").expect("it is read");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let output = probe_after_first(&addr, &["-f", "u32-be", "-w", "0.1", "--keep-open"], b"", "hi");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("stopped 8 bytes into a frame") && said.contains("00 00 00 09 68"), "{said}");
    peer.join().expect("the peer is fine");
}

#[test]
fn a_probe_whose_output_nobody_reads_ends_in_silence() {
    for errors_too in [false, true] {
        let (addr, peer) = peer(|mut stream| while stream.write_all(&b"line\n".repeat(1000)).is_ok() {});
        let mut command = Command::new(PROGRAM);
        command.args(["probe", &addr, "-f", "lines", "--send", "x", "--keep-open"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        let mut said = String::new();
        match child.stderr.take() {
            Some(stderr) if errors_too => drop(stderr),
            Some(mut stderr) => drop(stderr.read_to_string(&mut said).expect("text")),
            None => {}
        }
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{said}");
        assert!(!said.contains("panicked") && !said.contains("framewire:"), "{said}");
        peer.join().expect("the peer is fine");
    }
}

#[test]
fn an_echo_shows_each_connection_what_it_sends_and_how_it_ends() {
    let mut echo = Echo::start(&["--framing", "u8", "--show", "both", "--show-bytes", "4"]);
    let mut stream = TcpStream::connect(&echo.addr).expect("it listens");
    stream.write_all(b"\x02\x1bx\x06abcdef\x09half").expect("it reads");
    let opened = echo.shown();
    let (session, who) = opened.split_once(' ').expect("a session");
    assert_eq!(who, format!("+ {}", stream.local_addr().expect("an address")));
    assert_eq!(echo.shown(), format!("{session} <      2  1b 78  |\\x1bx|"));
    assert_eq!(echo.shown(), format!("{session} <      6  61 62 63 64  |abcd| ... (2 more bytes)"));
    drop(stream);
    let closed = echo.shown();
    assert!(closed.starts_with(&format!("{session} - ")), "{closed}");
}

#[test]
fn an_echo_ends_when_nobody_reads_what_it_shows() {
    let mut echo = Echo::start(&["--framing", "lines", "--show"]);
    echo.out = None;
    drop(TcpStream::connect(&echo.addr).expect("it listens"));
    assert_eq!(echo.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn an_echo_goes_on_when_nobody_reads_its_log() {
    let mut command = Command::new(PROGRAM);
    command.args(["echo", "127.0.0.1:0", "-f", "lines", "-vv"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    drop(child.stderr.take());
    let echo = Echo::listening(child);
    for _ in 0..2 {
        let output = probe(&echo.addr, &["-f", "lines", "--send", "x"], b"");
        assert_eq!(text(&output.stdout), "x\n", "{}", text(&output.stderr));
    }
}

#[test]
fn an_option_that_makes_no_sense_is_refused_for_what_it_is() {
    for (args, why) in [
        (&["localhost", "-f", "lines"][..], "there is no port"),
        (&["127.0.0.1:1", "-f", "lines", "--wait", "-1"], "no number of seconds"),
        (&["127.0.0.1:1", "-f", "lines", "--wait", "nan"], "no number of seconds"),
        (&["127.0.0.1:1", "-f", "lines", "--count", "0"], "--count"),
        (&["127.0.0.1:1", "-f", "lines", "--send-hex", "0x6"], "'6' at character 3 stands alone"),
        (&["127.0.0.1:1", "-f", "lines", "--send", "x", "--hex-input"], "cannot be used with"),
    ] {
        let output = probe(args[0], &args[1..], b"");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(why), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn help_keeps_its_columns_on_a_narrow_terminal_and_tells_the_exit_status() {
    for command in ["echo", "probe"] {
        for flag in ["-h", "--help"] {
            let output = Command::new(PROGRAM).args([command, flag]).env("COLUMNS", "80").output();
            let help = text(&output.expect("it runs").stdout);
            let framings = help.split_once("Framings (SPEC):\n").expect("the framings").1;
            let listed: Vec<_> = framings.lines().take_while(|line| !line.starts_with("Hyphens")).collect();
            assert!(listed.len() > 10 && listed.iter().all(|line| line.starts_with("  ")), "{help}");
            assert!(help.contains("Exit status:") || flag == "-h", "{help}");
        }
    }
}

#[test]
fn help_tells_of_every_command_and_of_no_hidden_one() {
    let help = text(&Command::new(PROGRAM).arg("--help").output().expect("it runs").stdout);
    for command in ["bench", "echo", "probe"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(!help.contains("serve-contestant") && !help.contains("keep "), "{help}");
}

#[test]
fn the_version_is_that_of_the_program_not_of_its_package() {
    let version = text(&Command::new(PROGRAM).arg("--version").output().expect("it runs").stdout);
    assert_eq!(version.trim_end(), concat!("framewire ", env!("CARGO_PKG_VERSION")));
}

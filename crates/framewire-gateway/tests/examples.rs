//! Runs the examples as people do.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command as Program, Stdio},
};

use common::{PATIENCE, client_addr, server_addr};
use framewire_gateway::{Dialect, Gateway, Keys};

struct Chat {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Chat {
    fn start(args: &[&str]) -> Self {
        let program = std::env::current_exe().expect("a path");
        let program = program
            .parent()
            .and_then(|deps| deps.parent())
            .expect("a directory")
            .join("examples/gateway_chat");
        let mut child = Program::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example is built with the tests");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{line}").expect("written");
    }

    fn expect(&mut self, expected: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        assert_eq!(line.trim_end(), expected);
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_chat_through_the_gateway() {
    let gateway = Gateway::new()
        .clients("127.0.0.1:0")
        .servers("127.0.0.1:0", Dialect::Md5, Keys::open_to_all())
        .spawn()
        .expect("started");
    let (clients, servers) = (client_addr(&gateway).to_string(), server_addr(&gateway).to_string());
    let mut first = Chat::start(&["both", &clients, &servers]);
    // Dials that came before the server was known have used up numbers.
    let mut joined = String::new();
    first.lines.read_line(&mut joined).expect("a line");
    let name = joined.trim_end().strip_prefix("* ").and_then(|rest| rest.strip_suffix(" has joined"));
    let name = name.unwrap_or_else(|| panic!("{joined:?}")).to_owned();
    let mut second = Chat::start(&["join", &clients]);
    let other =
        format!("client {}", name.trim_start_matches("client ").parse::<u32>().expect("a number") + 1);
    first.expect(&format!("* {other} has joined"));
    second.expect(&format!("* {other} has joined"));
    first.say("hello");
    for chat in [&mut first, &mut second] {
        chat.expect(&format!("{name}: hello"));
    }
    second.say("welcome");
    first.expect(&format!("{other}: welcome"));
    drop(second);
    first.expect(&format!("* {other} has left"));
    drop(first);
    gateway.stop(PATIENCE).expect("stopped");
}

#[test]
fn the_same_chat_without_a_gateway() {
    let mut chat = Chat::start(&["direct", "127.0.0.1:0"]);
    let mut told = String::new();
    chat.lines.read_line(&mut told).expect("a line");
    let addr = told.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{told:?}")).to_owned();
    let connect = || {
        let stream = TcpStream::connect(&addr).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let name = stream.local_addr().expect("an address").to_string();
        (BufReader::new(stream), name)
    };
    let hear = |member: &mut BufReader<TcpStream>, expected: &str| {
        let mut line = String::new();
        member.read_line(&mut line).expect("a line");
        assert_eq!(line.trim_end(), expected);
    };
    let (mut first, name) = connect();
    hear(&mut first, &format!("* {name} has joined"));
    let (mut second, other) = connect();
    for member in [&mut first, &mut second] {
        hear(member, &format!("* {other} has joined"));
    }
    writeln!(first.get_ref(), "hello").expect("written");
    for member in [&mut first, &mut second] {
        hear(member, &format!("{name}: hello"));
    }
    drop(second);
    hear(&mut first, &format!("* {other} has left"));
}

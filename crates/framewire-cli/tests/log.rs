//! What the command line logs with `-v`, and where.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A server of the test's own; ends with it.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_is_no_terminal_has_no_colour_codes() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framewire"));
    command.args(["echo", "-vv", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut echo = Echo(command.spawn().expect("the program runs"));
    let mut said = BufReader::new(echo.0.stdout.take().expect("its output")).lines();
    let line = said.next().expect("where it listens").expect("text");
    let addr = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
    let mut client = TcpStream::connect(addr).expect("it listens");
    // a length of 4 GiB: the session ends, which is logged
    client.write_all(&[0xff; 4]).expect("it is sent");
    let mut log = BufReader::new(echo.0.stderr.take().expect("its log")).lines();
    let about_the_end = log.by_ref().map(|line| line.expect("text")).inspect(|line| {
        assert!(!line.contains('\u{1b}'), "{line:?}");
    });
    assert!(about_the_end.into_iter().any(|line| line.contains("session")), "it logs");
}

//! What the log says of the end of a session.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::Failure,
    sim::{Setup, World, frame},
};

/// Where the log of this thread goes.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged when a client says that to a server whose handler takes every packet for a reason to end its session.
fn log_of(workers: usize, said: &[u8]) -> Vec<String> {
    let page = Page::default();
    let writer = page.clone();
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    tracing::subscriber::with_default(log.with_writer(move || writer.clone()).finish(), || {
        let mut setup = Setup { workers, ..Setup::default() };
        setup.sizes.up = 1 << 20;
        let mut world = World::new(setup, |probe| {
            probe.packet =
                Box::new(|_, packet| Err(Failure::because(String::from_utf8_lossy(packet).into_owned())));
        });
        let conn = world.connect();
        assert_eq!(world.net().say(conn, said), said.len());
        world.run_for(1);
        world.net().leave(conn);
        world.run_to_rest();
        world.assert_empty();
    });
    let text = page.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = String::from_utf8(text).expect("the log is text");
    text.split_terminator('\n').map(str::to_owned).collect()
}

#[test]
fn the_end_of_a_session_that_broke_the_wire_is_logged_once_with_what_it_sent() {
    for workers in [0, 2] {
        let lines = log_of(workers, b"\xff\xff\xff\xff\n\x1b[2J forged line");
        let endpoints: Vec<_> = lines.iter().filter(|line| line.contains("over the maximum")).collect();
        let [end] = endpoints[..] else { panic!("not once: {lines:?}") };
        let why = "reason=frame of 4294967295 bytes is over the maximum of 1048576; it begins with ff ff ff ff 0a 1b 5b 32";
        assert!(end.contains("session ended") && end.contains("kind=Frame") && end.contains(why), "{end}");
        assert!(!lines.concat().contains("forged"), "{lines:?}");
    }
}

#[test]
fn what_a_peer_wrote_into_the_reason_of_a_handler_forges_no_line_of_the_log() {
    for workers in [0, 2] {
        let lines = log_of(workers, &frame(&b"no\r\nforged line\x1b[2J".repeat(10_000)));
        let endpoints: Vec<_> = lines.iter().filter(|line| line.contains("forged")).collect();
        let [end] = endpoints[..] else { panic!("not on one line: {} lines", lines.len()) };
        assert!(end.contains("session ended") && end.contains("kind=Handler"), "{end}");
        assert!(end.contains(r"reason=handler: no\r\nforged line\u{1b}[2Jno\r\n"), "{end}");
        assert!(end.len() < 1_000 && !end.contains(char::is_control), "{} bytes: {end}", end.len());
    }
}

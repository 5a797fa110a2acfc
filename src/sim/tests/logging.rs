//! What the log says of the end of a session, and of dials.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    dial::{Dial, Reconnect},
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

/// What is logged while `body` runs.
fn logged(body: impl FnOnce()) -> Vec<String> {
    let page = Page::default();
    let writer = page.clone();
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    tracing::subscriber::with_default(log.with_writer(move || writer.clone()).finish(), body);
    let text = page.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = String::from_utf8(text).expect("the log is text");
    text.split_terminator('\n').map(str::to_owned).collect()
}

/// What is logged when a client says that to a server whose handler takes every packet for a reason to end its session.
fn log_of(workers: usize, said: &[u8]) -> Vec<String> {
    logged(|| {
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
    })
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

/// So many clients come and go, each in a millisecond of its own.
fn come_and_go(world: &mut World, clients: usize, said: &[u8]) {
    for _ in 0..clients {
        let conn = world.connect();
        world.net().say(conn, said);
        world.run_for(1);
        world.net().leave(conn);
    }
}

#[test]
fn a_flood_of_ends_is_summed_up_on_every_strategy() {
    for (workers, forks, gates) in [(0, 0, 1), (2, 0, 2), (0, 2_000, 1)] {
        let lines = logged(|| {
            let mut world = World::new(Setup { workers, forks, ..Setup::default() }, |_| ());
            come_and_go(&mut world, 2_000, b"");
            world.run_for(20_000);
            assert_eq!(world.metrics().closed_total(), 2_000);
            world.assert_empty();
        });
        let each = lines.iter().filter(|line| line.contains("session ended ")).count();
        // At most ten in each second that begins, and it lasts three.
        assert!((10..=10 * 4 * gates).contains(&each), "{workers} workers, {forks} forks: {each} lines");
        let sums: Vec<_> = lines.iter().filter_map(|line| line.split_once("session ended: … and ")).collect();
        let left_out: usize = sums.iter().map(|(_, sum)| number(sum)).sum();
        assert_eq!(each + left_out, 2_000, "every one is in the log, or in a sum: {sums:?}");
        assert!(sums.len() <= 2 * gates && sums.iter().all(|(_, sum)| sum.ends_with(" s")), "{sums:?}");
    }
}

fn number(text: &str) -> usize {
    let digits: String =
        text.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
    digits.parse().expect("it begins with a number")
}

#[test]
fn a_flood_of_panics_takes_no_line_from_anything_else_and_is_summed_up_when_the_server_stops() {
    let lines = logged(|| {
        let mut world = World::new(Setup::default(), |probe| {
            probe.packet = Box::new(|_, _| std::panic::resume_unwind(Box::new("a\n\x1b[2Jforged line")));
        });
        come_and_go(&mut world, 500, &frame(b"hello"));
        world.shut_down(std::time::Duration::from_secs(1));
        world.run_to_rest();
        world.assert_gone();
    });
    let panics: Vec<_> = lines.iter().filter(|line| line.contains("closing the session")).collect();
    assert_eq!(panics.len(), 10);
    for line in &panics {
        assert!(
            line.contains("session=") && line.contains("peer=") && line.contains("reason=panic in on_packet")
        );
        assert!(line.contains(r"a\n\u{1b}[2Jforged line") && !line.contains(char::is_control), "{line}");
    }
    let ends = lines.iter().filter(|line| line.contains("session ended ")).count();
    assert_eq!(ends, 10, "they have lines of their own");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("ERROR") && line.contains("panics: … and 490 more in the last"))
    );
    assert!(
        lines.iter().any(|line| line.contains("DEBUG") && line.contains("session ended: … and 490 more"))
    );
}

#[test]
fn dials_that_fail_are_logged_with_their_id_and_cause_and_a_flood_of_them_is_summed_up() {
    let lines = logged(|| {
        let mut world = World::new(Setup::default(), |_| ());
        let again = Reconnect::delays([Duration::from_millis(1)]).attempts(3);
        for _ in 0..100 {
            world.dial(Dial::to("192.0.2.1:7").reconnect(again.clone()));
        }
        world.run_to_rest();
        let metrics = world.metrics();
        assert_eq!((metrics.dials_failed_total(), metrics.redials_total()), (100, 300));
        world.assert_empty();
    });
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((count("a dial has failed "), count("dialling again after a pause ")), (10, 10), "{lines:?}");
    for line in lines.iter().filter(|line| line.contains("a dial has failed ")) {
        assert!(
            line.contains("DEBUG") && line.contains(" dial=") && line.contains("cause=\"refused\""),
            "{line}"
        );
        assert!(line.contains("error=cannot connect to 192.0.2.1:7: "), "{line}");
    }
    assert_eq!(count("a dial has failed: … and 90 more in the last"), 1, "{lines:?}");
    assert_eq!(count("dials made again: … and 290 more in the last"), 1, "{lines:?}");
}

//! What a server writes to the log, on every strategy: with a subscriber for the whole process, and so in a program of its own.

mod common;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use common::{On, PATIENCE, on_each_strategy, on_each_strategy_without_layers, until};
use framewire::{Failure, Limits, packet_fn};

on_each_strategy! {
    what_a_peer_wrote_forges_no_line_and_the_line_names_the_session_and_its_peer
}

on_each_strategy_without_layers! {
    a_flood_of_ends_is_summed_up_and_loses_none
}

/// Where the log of the process goes.
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

/// One test at a time.
struct Log {
    _turn: MutexGuard<'static, ()>,
    page: Page,
}

impl Log {
    /// An empty page, for as long as this lives.
    fn begin() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        static PAGE: OnceLock<Page> = OnceLock::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let page = PAGE.get_or_init(|| {
            let page = Page::default();
            let writer = page.clone();
            let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
            let log = log.with_writer(move || writer.clone()).finish();
            tracing::subscriber::set_global_default(log).expect("it is the first");
            page
        });
        page.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Self { _turn: turn, page: page.clone() }
    }

    fn lines(&self) -> Vec<String> {
        let text = self.page.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(text).expect("the log is text");
        text.split_terminator('\n').map(str::to_owned).collect()
    }

    fn with(&self, text: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(text)).collect()
    }
}

fn what_a_peer_wrote_forges_no_line_and_the_line_names_the_session_and_its_peer(on: On) {
    let log = Log::begin();
    let handler = packet_fn(|_, packet| Err(Failure::because(String::from_utf8_lossy(packet).into_owned())));
    let served = on.serve(Limits::default(), handler);
    let (mut client, session) = served.connect_known();
    let peer = served.running.sessions().expect("they answer").pop().expect("there is one").peer;
    client.send(b"no\r\n2026-01-01 INFO forged line\x1b[2J\xff\xfe\x07");
    client.assert_end();
    drop(client);
    served.finish();
    let ends = log.with("forged");
    let [end] = &ends[..] else { panic!("not on one line: {ends:?}") };
    assert!(end.contains("session ended") && end.contains("kind=Handler"), "{end}");
    assert!(end.contains(&format!("session={} peer={peer} ", session.id())), "{end}");
    let reason = r"reason=handler: no\r\n2026-01-01 INFO forged line\u{1b}[2J��\u{7}";
    assert!(end.contains(reason), "{end}");
    assert!(!log.lines().concat().contains(char::is_control));
}

fn a_flood_of_ends_is_summed_up_and_loses_none(on: On) {
    const CLIENTS: usize = 500;
    let log = Log::begin();
    let served = on.echo(Limits::default());
    for _ in 0..CLIENTS {
        served.connect().assert_echo("hello and goodbye");
    }
    until("all have gone", || served.running.session_count() == 0);
    let uptime = served.metrics().uptime;
    // What was left out is summed up now, rather than in ten seconds.
    served.running.shutdown(PATIENCE);
    served.await_stop();
    let each = log.with("session ended ").len();
    let sums = log.with("session ended: … and ");
    let left_out: usize = sums.iter().map(|line| number_behind(line, "… and ")).sum();
    assert_eq!(each + left_out, CLIENTS, "every end is a line or in a sum: {sums:?}");
    // Ten lines for each of two shards in every second that begins.
    let seconds = usize::try_from(uptime.as_secs()).expect("a few") + 2;
    assert!(each <= 20 * seconds, "{each} lines in {uptime:?}");
}

/// The number with commas that follows this text.
fn number_behind(line: &str, text: &str) -> usize {
    let (_, rest) = line.split_once(text).expect("it is there");
    let digits = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',');
    digits.collect::<String>().parse().expect("a number")
}

#[cfg(target_os = "linux")]
#[test]
fn the_path_of_a_peer_is_escaped_in_the_log_and_in_events() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use socket2::{Domain, SockAddr, Socket, Type};

    let log = Log::begin();
    let served = On::UnixSocket.echo(Limits::default());
    let events = served.running.events(10);
    let mut path = std::env::temp_dir().into_os_string();
    path.push(format!("/framewire-{}-", std::process::id()));
    path.push(OsStr::from_bytes(b"\x1b]0;title\x07\nforged line\xff"));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::unix(&path).expect("a path")).expect("it is free");
    socket.connect(&served.addr()).expect("it listens");
    drop(socket);
    let end = events.recv_timeout(PATIENCE).expect("it ends").to_string();
    std::fs::remove_file(&path).expect("it is there");
    until("it is logged", || !log.with("session ended").is_empty());
    let lines = log.with("forged");
    let [line] = &lines[..] else { panic!("not on one line: {lines:?}") };
    for text in [line, &end] {
        assert!(text.contains(r"\u{1b}]0;title\u{7}\nforged line\xff"), "{text}");
        assert!(!text.contains(char::is_control), "{text}");
    }
    drop(served.running);
}

//! Clients in a network of their own, where packets are lost, refused and unroutable as the test says. Needs a user that may make
//! namespaces (`unshare -rnm`), and the programs `ip` and `mount`; where that is not so, each test says that it is skipped.
#![cfg(target_os = "linux")]

use std::{
    env,
    io::{self, ErrorKind, Write},
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use framewire::{
    CloseKind, CloseReason, Dial, DialError, DialId, Handled, PacketHandler, Raw, RunningServer, Server,
    Session, SessionInfo, ShardContext, Unframed,
};
use socket2::SockRef;

/// Nothing takes that long.
const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_millis(300);
/// Set within the namespace.
const INSIDE: &str = "FRAMEWIRE_NAMESPACE";
/// The exit code of a namespace that could not be made.
const NO_NAMESPACE: i32 = 77;
/// The address of this side.
const OWN: &str = "10.99.0.1";
/// Behind a tunnel into which nobody looks: what is sent there is lost.
const BLACK_HOLE: &str = "10.99.0.2";
/// There is no way to it.
const UNREACHABLE: &str = "10.98.0.2";
/// A name of all three: nobody is at the first, or at the last.
const SEVERAL: &str = "several.framewire.test";

/// Makes the network, and runs the program that it is given in it. A namespace of users and mounts ends with its last process.
const SCRIPT: &str = r#"
{
    ip link set lo up &&
    ip tuntap add dev tunnel mode tun && ip addr add 10.99.0.1/24 dev tunnel && ip link set tunnel up &&
    ip route add unreachable 10.98.0.0/24 &&
    mount -t tmpfs none /mnt &&
    { cat /etc/hosts; for at in 127.0.0.1 10.99.0.1 10.99.0.2; do echo "$at several.framewire.test"; done; } > /mnt/hosts &&
    mount --bind /mnt/hosts /etc/hosts
} || exit 77
exec "$@"
"#;

/// Runs the test with this name in a namespace.
fn in_namespace(name: &str, scenario: fn()) {
    if env::var_os(INSIDE).is_some() {
        return scenario();
    }
    let own = env::current_exe().expect("a test has a path");
    let ran = Command::new("unshare")
        .args(["-rnm", "sh", "-c", SCRIPT, "sh"])
        .arg(own)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output();
    let why = match ran {
        Ok(ran) if ran.status.success() => return,
        Ok(ran) if ran.status.code() == Some(NO_NAMESPACE) || ran.stderr.starts_with(b"unshare: ") => {
            String::from_utf8_lossy(&ran.stderr).into_owned()
        }
        Ok(ran) => panic!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr)),
        Err(error) => error.to_string(),
    };
    // Past the test harness, which shows nothing of a test that passes.
    let _ = writeln!(io::stderr(), "SKIPPED {name}: no network namespace: {}", why.trim());
}

macro_rules! in_namespaces {
    ($($scenario:ident)+) => {
        $(#[test]
        fn $scenario() {
            in_namespace(stringify!($scenario), scenarios::$scenario);
        })+
    };
}

in_namespaces! {
    a_port_where_nobody_listens_refuses
    packets_that_are_lost_time_out
    an_address_without_a_route_is_told_at_once
    a_connection_that_is_reset_at_once_was_a_session
    all_addresses_of_a_name_are_tried
    a_udp_port_where_nobody_is_ends_the_session
}

#[derive(Debug)]
enum Seen {
    Open,
    Close(CloseReason),
    Failed(DialError),
}

/// Passes on all that it sees.
#[derive(Clone)]
struct Witness(Sender<Seen>);

impl PacketHandler for Witness {
    type State = ();

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        self.0.send(Seen::Open)?;
        Ok(session.send("hello")?)
    }

    fn on_packet(&mut self, _: &mut Session<'_>, (): &mut (), _: &[u8]) -> Handled {
        Ok(())
    }

    fn on_close(&mut self, _: &SessionInfo, (): (), reason: &CloseReason) {
        let _ = self.0.send(Seen::Close(reason.clone()));
    }

    fn on_dial_failed(&mut self, _: &mut ShardContext<'_, ()>, _: DialId, error: &DialError) {
        let _ = self.0.send(Seen::Failed(error.clone()));
    }
}

struct Client {
    running: RunningServer,
    seen: Receiver<Seen>,
}

impl Client {
    fn tcp() -> Self {
        let (tell, seen) = channel();
        let server: Server<Unframed> = Server::unbound();
        Self { running: server.framing(Raw::new()).spawn(Witness(tell)).expect("it starts"), seen }
    }

    fn udp() -> Self {
        let (tell, seen) = channel();
        Self { running: Server::unbound_udp().spawn(Witness(tell)).expect("it starts"), seen }
    }

    fn dial(&self, dial: Dial) {
        self.running.connect(dial.timeout(TIMEOUT)).expect("it runs");
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("something is to happen")
    }

    fn failure(&self) -> DialError {
        match self.next() {
            Seen::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn expect_open(&self) {
        assert!(matches!(self.next(), Seen::Open));
    }

    fn stop(self) {
        self.running.stop(PATIENCE).expect("it stops");
    }
}

mod scenarios {
    use super::*;

    /// A port of this side where nobody listens.
    fn free_port() -> u16 {
        let free = TcpListener::bind((OWN, 0)).and_then(|listener| listener.local_addr());
        free.expect("a free port").port()
    }

    pub(super) fn a_port_where_nobody_listens_refuses() {
        let client = Client::tcp();
        client.dial(Dial::to((OWN, free_port())));
        match client.failure() {
            DialError::Connect { source, .. } => assert_eq!(source.kind(), ErrorKind::ConnectionRefused),
            other => panic!("{other:?}"),
        }
        client.stop();
    }

    pub(super) fn packets_that_are_lost_time_out() {
        let client = Client::tcp();
        let begun = Instant::now();
        client.dial(Dial::to((BLACK_HOLE, 80)));
        let failure = client.failure();
        assert!(matches!(failure, DialError::TimedOut { after, .. } if after == TIMEOUT), "{failure:?}");
        assert!(begun.elapsed() >= TIMEOUT);
        client.stop();
    }

    pub(super) fn an_address_without_a_route_is_told_at_once() {
        let to = (UNREACHABLE, 80);
        for (client, dial) in [(Client::tcp(), Dial::to(to)), (Client::udp(), Dial::to_udp(to))] {
            client.dial(dial);
            match client.failure() {
                DialError::Connect { source, .. } => assert_eq!(source.kind(), ErrorKind::HostUnreachable),
                other => panic!("{other:?}"),
            }
            client.stop();
        }
    }

    pub(super) fn a_connection_that_is_reset_at_once_was_a_session() {
        let listener = TcpListener::bind((OWN, 0)).expect("a free port");
        let client = Client::tcp();
        client.dial(Dial::to(listener.local_addr().expect("it is bound")));
        let (peer, _) = listener.accept().expect("it connects");
        client.expect_open();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a TCP stream");
        drop(peer);
        match client.next() {
            Seen::Close(reason) => assert_eq!(reason.kind(), CloseKind::Io, "{reason}"),
            other => panic!("{other:?}"),
        }
        client.stop();
    }

    pub(super) fn all_addresses_of_a_name_are_tried() {
        let listener = TcpListener::bind((OWN, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let client = Client::tcp();
        client.dial(Dial::to((SEVERAL, port)));
        client.expect_open();
        let (_peer, from) = listener.accept().expect("it connects");
        assert_eq!(from.ip().to_string(), OWN, "nobody is at the others");
        client.running.abort();
        client.running.wait().expect("it stops");

        drop(listener);
        let client = Client::tcp();
        client.dial(Dial::to((SEVERAL, port)));
        let failure = client.failure();
        assert!(matches!(failure, DialError::Connect { .. } | DialError::TimedOut { .. }), "{failure:?}");
        client.stop();
    }

    pub(super) fn a_udp_port_where_nobody_is_ends_the_session() {
        let free = UdpSocket::bind((OWN, 0)).and_then(|socket| socket.local_addr()).expect("a free port");
        let client = Client::udp();
        client.dial(Dial::to_udp(free));
        client.expect_open();
        match client.next() {
            Seen::Close(CloseReason::Io(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            other => panic!("{other:?}"),
        }
        client.stop();
    }
}

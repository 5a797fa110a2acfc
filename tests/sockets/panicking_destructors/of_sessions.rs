//! Values of a session, or on their way to one, that panic when they are dropped or cloned.

use std::{
    error::Error,
    fmt,
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use framewire::{
    CloseKind, CloseReason, Decoded, EncodeError, Failure, FrameError, Framing, Handled, LengthPrefix,
    PacketHandler, ServerHandle, Session, SessionInfo,
};

use crate::common::{Client, ON_PURPOSE, On, Served, echo, hush, on_each_strategy, until};
use crate::handlers::Scripted;

on_each_strategy! {
    a_payload_of_a_panic_that_panics_when_dropped_ends_one_session
    a_state_that_panics_when_dropped_ends_one_session
    a_framing_that_panics_when_dropped_ends_one_session
    a_framing_that_panics_when_replaced_ends_one_session
    a_reason_that_panics_when_dropped_ends_one_session
    a_second_reason_that_panics_when_dropped_ends_one_session
    a_reason_and_a_framing_that_both_panic_when_dropped_end_one_session
    a_new_framing_that_panics_twice_ends_one_session
    a_framing_that_panics_when_cloned_costs_one_connection
    a_framing_of_another_listener_that_panics_when_cloned_costs_one_connection
    a_framing_of_another_listener_that_panics_when_dropped_ends_one_session
    a_job_that_panics_when_dropped_harms_nobody
    a_job_that_is_never_run_and_panics_when_dropped_does_not_stop_the_shutdown
    a_packet_that_panics_when_dropped_harms_nobody
}

/// Panics when it is dropped, once it is armed.
#[derive(Debug, Default)]
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "{ON_PURPOSE}: dropped");
    }
}

/// Has all of it captured.
fn carries(bomb: &Bomb) -> bool {
    bomb.0
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl Error for Bomb {}

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        b"a bomb"
    }
}

/// Echoes, and takes a bomb where the packet says.
#[derive(Clone)]
struct Careless;

impl PacketHandler for Careless {
    type State = Bomb;

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled<Bomb> {
        Ok(Bomb(false))
    }

    fn on_packet(&mut self, session: &mut Session<'_>, state: &mut Bomb, packet: &[u8]) -> Handled {
        session.send(packet)?;
        match packet {
            b"payload" => panic_any(Bomb(true)),
            b"state" => {
                state.0 = true;
                session.close();
            }
            b"framing" => session.close(),
            b"replaced framing" => session.set_framing(LengthPrefix::u32_be()),
            b"reason" => return Err(Failure::from(Bomb(true))),
            b"reason and framing" => return Err(Failure::from(Bomb(true))),
            b"new" => session.set_framing(Stillborn(Bomb(true))),
            b"second reason" => {
                session.close();
                return Err(Failure::from(Bomb(true)));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_close(&mut self, _session: &SessionInfo, state: Bomb, _reason: &CloseReason) {
        drop(state);
    }
}

/// Length prefixes; panics when it is cloned while it is armed, and when it is dropped after certain packets.
struct Explosive {
    inner: LengthPrefix,
    armed: Arc<AtomicBool>,
    bomb: Bomb,
}

impl Explosive {
    fn new() -> Self {
        Self { inner: LengthPrefix::u32_be(), armed: Arc::default(), bomb: Bomb(false) }
    }
}

impl Clone for Explosive {
    fn clone(&self) -> Self {
        assert!(!self.armed.swap(false, Ordering::Relaxed), "{ON_PURPOSE}: cloned");
        Self { inner: self.inner.clone(), armed: self.armed.clone(), bomb: Bomb(false) }
    }
}

impl Framing for Explosive {
    fn decode(&mut self, buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        self.bomb.0 |= buf.ends_with(b"framing");
        self.inner.decode(buf)
    }

    fn encode(&self, payload: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
        self.inner.encode(payload, out)
    }
}

/// Panics when it is offered its maximum, and once more when it is dropped for that.
struct Stillborn(Bomb);

impl Framing for Stillborn {
    fn decode(&mut self, _buf: &mut [u8]) -> Result<Option<Decoded>, FrameError> {
        Ok(None)
    }

    fn encode(&self, _payload: &[u8], _out: &mut BytesMut) -> Result<(), EncodeError> {
        Ok(())
    }

    fn offer_max(&mut self, _max: usize) {
        assert!(!carries(&self.0), "{ON_PURPOSE}: offered a maximum");
    }
}

/// The session that says so ends for that reason, so many panics are counted, and everybody else is served.
fn blow_up(on: On, packet: &str, kind: CloseKind, panics: u64) {
    let server = on.bind().framing(Explosive::new());
    blow_up_at(0, Served::start(server, Careless), packet, kind, panics);
}

/// As [`blow_up`], with a session of this listener.
fn blow_up_at(listener: usize, served: Served, packet: &str, kind: CloseKind, panics: u64) {
    hush();
    let mut bystander = served.connect();
    bystander.assert_echo("well");
    let (mut client, session) = served.known(|served| served.connect_to(listener));
    client.assert_echo(packet);
    client.assert_end();
    drop(client);
    assert_eq!(served.journal.await_ending(session.id()).0, kind);
    until("it is forgotten", || served.running.session_count() == 1);
    bystander.assert_echo("still served");
    served.connect_to(listener).assert_echo("and so are new ones");
    until("the panics are counted", || served.metrics().panics == panics);
    drop(bystander);
    served.finish();
}

fn a_payload_of_a_panic_that_panics_when_dropped_ends_one_session(on: On) {
    blow_up(on, "payload", CloseKind::Panicked, 1);
}

fn a_state_that_panics_when_dropped_ends_one_session(on: On) {
    blow_up(on, "state", CloseKind::Local, 1);
}

fn a_framing_that_panics_when_dropped_ends_one_session(on: On) {
    blow_up(on, "framing", CloseKind::Local, 1);
}

fn a_framing_of_another_listener_that_panics_when_dropped_ends_one_session(on: On) {
    let server = on.also(on.bind().framing(LengthPrefix::u32_be()), Explosive::new());
    blow_up_at(1, Served::start(server, Careless), "framing", CloseKind::Local, 1);
}

fn a_framing_that_panics_when_replaced_ends_one_session(on: On) {
    blow_up(on, "replaced framing", CloseKind::Panicked, 1);
}

fn a_reason_that_panics_when_dropped_ends_one_session(on: On) {
    blow_up(on, "reason", CloseKind::Handler, 1);
}

fn a_second_reason_that_panics_when_dropped_ends_one_session(on: On) {
    blow_up(on, "second reason", CloseKind::Local, 1);
}

fn a_reason_and_a_framing_that_both_panic_when_dropped_end_one_session(on: On) {
    blow_up(on, "reason and framing", CloseKind::Handler, 2);
}

fn a_new_framing_that_panics_twice_ends_one_session(on: On) {
    blow_up(on, "new", CloseKind::Panicked, 1);
}

/// Without a byte, one way or the other.
fn assert_turned_away(mut client: Client) {
    assert_eq!(client.read_to_any_end().0, b"");
}

fn a_framing_that_panics_when_cloned_costs_one_connection(on: On) {
    hush();
    let framing = Explosive::new();
    let armed = framing.armed.clone();
    turn_away_at(0, Served::start(on.bind().framing(framing), Careless), &armed);
}

fn a_framing_of_another_listener_that_panics_when_cloned_costs_one_connection(on: On) {
    hush();
    let framing = Explosive::new();
    let armed = framing.armed.clone();
    let server = on.also(on.bind().framing(LengthPrefix::u32_be()), framing);
    turn_away_at(1, Served::start(server, Careless), &armed);
}

/// The framing of this listener panics when it is cloned for the next connection.
fn turn_away_at(listener: usize, served: Served, armed: &AtomicBool) {
    let mut bystander = served.connect();
    bystander.assert_echo("well");
    armed.store(true, Ordering::Relaxed);
    if listener > 0 {
        served.connect().assert_echo("the other framing is not concerned");
        until("it has left", || served.running.session_count() == 1);
    }
    assert_turned_away(served.connect_to(listener));
    until("it is forgotten", || served.running.session_count() == 1);
    bystander.assert_echo("still served");
    served.connect_to(listener).assert_echo("and so are new ones");
    until("it is counted", || served.metrics().refused_total() == 1);
    drop(bystander);
    served.finish();
}

/// Panics when it is cloned while it is armed.
struct Unique(Arc<AtomicBool>);

impl Clone for Unique {
    fn clone(&self) -> Self {
        assert!(!self.0.swap(false, Ordering::Relaxed), "{ON_PURPOSE}: cloned");
        Self(self.0.clone())
    }
}

impl PacketHandler for Unique {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        Ok(session.send(packet)?)
    }
}

#[test]
fn a_handler_that_panics_when_cloned_for_a_connection_costs_that_one() {
    hush();
    let armed = Arc::<AtomicBool>::default();
    let served = On::ThreadPerConnection.serve(framewire::Limits::default(), Unique(armed.clone()));
    let mut bystander = served.connect();
    bystander.assert_echo("well");
    armed.store(true, Ordering::Relaxed);
    assert_turned_away(served.connect());
    until("it is forgotten", || served.running.session_count() == 1);
    bystander.assert_echo("still served");
    served.connect().assert_echo("and so are new ones");
    until("it is counted", || served.metrics().refused_total() == 1);
    drop(bystander);
    served.finish();
}

fn a_job_that_panics_when_dropped_harms_nobody(on: On) {
    hush();
    let served = Served::start(on.bind().framing(Explosive::new()), Careless);
    let (mut bystander, session) = served.connect_known();
    let bomb = Bomb(true);
    let told = served.running.execute(session.id().shard(), move |_| assert!(carries(&bomb)));
    assert_eq!(told, Ok(()));
    until("the panic is counted", || served.metrics().panics == 1);
    bystander.assert_echo("still served");
    drop(bystander);
    served.finish();
}

/// Leaves its shard a job as the last of its sessions ends by an abort: too late to be run.
fn heirloom(server: ServerHandle) -> Scripted<()> {
    Scripted::echo().on_close(move |session, ()| {
        let bomb = Bomb(true);
        let told = server.execute(session.id.shard(), move |_| assert!(carries(&bomb)));
        assert_eq!(told, Ok(()));
    })
}

fn a_job_that_is_never_run_and_panics_when_dropped_does_not_stop_the_shutdown(on: On) {
    hush();
    let server = on.bind().framing(LengthPrefix::u32_be());
    let handler = heirloom(server.handle());
    let served = Served::start(server, handler);
    let mut client = served.connect();
    client.assert_echo("well");
    served.running.abort();
    client.read_to_any_end();
    drop(client);
    served.finish();
}

fn a_packet_that_panics_when_dropped_harms_nobody(on: On) {
    hush();
    let echo = echo();
    let served = Served::start(on.bind().framing(LengthPrefix::u32_be()), echo);
    let mut bystander = served.connect();
    let (mut client, session) = served.connect_known();
    let packet = Bytes::from_owner(Bomb(true));
    assert_eq!(session.send(packet), Ok(()));
    assert_eq!(client.recv(), b"a bomb");
    bystander.assert_echo("still served");
    drop((client, bystander));
    served.finish();
}

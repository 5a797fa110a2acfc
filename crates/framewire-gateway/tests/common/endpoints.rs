//! Endpoints of tests, and a handler that notes what becomes of its sessions.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use framewire::{
    CloseKind, CloseReason, Failure, Handled, PacketHandler, Reconnect, Session, SessionHandle, SessionInfo,
    packet_fn,
};
use framewire_gateway::{
    LinkOptions, RunningEndpoint, RunningGateway, ServerEndpoint, Virtual, VirtualDialError,
};

use super::{KEY, PATIENCE, server_addr, wait_until};

pub(crate) fn options() -> LinkOptions {
    let reconnect = Reconnect::exponential(Duration::from_millis(5), Duration::from_millis(100));
    LinkOptions { reconnect, ..LinkOptions::default() }
}

pub(crate) fn server(gateways: &[&RunningGateway], id: u32) -> ServerEndpoint {
    let addrs: Vec<String> = gateways.iter().map(|gateway| server_addr(gateway).to_string()).collect();
    ServerEndpoint::new(addrs, id, KEY).options(options())
}

/// Waits until the gateway knows the server.
pub(crate) fn registered(gateway: &RunningGateway, id: u32) {
    wait_until(|| gateway.snapshot().servers.iter().any(|server| server.id == id));
}

pub(crate) fn echo() -> impl PacketHandler<State = ()> + Clone + Send + 'static {
    packet_fn(|session, packet| Ok(session.send(packet)?))
}

/// A handler that notes what becomes of its sessions.
#[derive(Clone, Default)]
pub(crate) struct Noted {
    pub(crate) opened: Arc<Mutex<Vec<(Virtual, SessionHandle)>>>,
    pub(crate) closed: Arc<Mutex<Vec<(u32, CloseKind)>>>,
    pub(crate) heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

pub(crate) fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PacketHandler for Noted {
    type State = Virtual;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Virtual> {
        let known = Virtual::of(session).ok_or_else(|| Failure::because("not virtual"))?;
        lock(&self.opened).push((known, session.handle()));
        Ok(known)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _: &mut Virtual, packet: &[u8]) -> Handled {
        match packet {
            b"close" => {
                session.send("bye")?;
                session.close();
            }
            b"quiet" => lock(&self.heard).push(packet.to_vec()),
            _ => {
                lock(&self.heard).push(packet.to_vec());
                session.send(packet)?;
            }
        }
        Ok(())
    }

    fn on_close(&mut self, _: &SessionInfo, known: Virtual, reason: &CloseReason) {
        lock(&self.closed).push((known.remote, reason.kind()));
    }
}

impl Noted {
    pub(crate) fn closes(&self) -> Vec<(u32, CloseKind)> {
        lock(&self.closed).clone()
    }
}

pub(crate) fn stop(endpoint: RunningEndpoint, gateways: Vec<RunningGateway>) {
    endpoint.stop(PATIENCE).expect("it stops in peace");
    for gateway in gateways {
        wait_until(|| gateway.snapshot().servers.is_empty());
        gateway.stop(PATIENCE).expect("it stops in peace");
    }
}

/// What a dial has come to.
pub(crate) fn dial(
    endpoint: &RunningEndpoint,
    remote: u32,
    within: Duration,
) -> Receiver<Result<(), VirtualDialError>> {
    let (told, outcome) = channel();
    endpoint.handle().dial(remote, within, move |outcome| told.send(outcome).expect("the test waits"));
    outcome
}

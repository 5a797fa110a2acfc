//! Who is connected to the gateway, on all of its threads, and which virtual connections there are. Asked when a link
//! comes or goes and when a connection is opened or closed, never for a frame.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Side,
    counters::Traffic,
    ids::{self, IdMap},
    limits::GatewayLimits,
};

/// Names a link: the thread that it lives on, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkAddr {
    pub(crate) thread: u16,
    pub(crate) slot: u32,
    /// Tells links apart that had the same place one after the other.
    pub(crate) generation: u32,
}

/// The reasons for which a dial is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The dialer was never given that connection ID, or has dialed it already.
    NotIssued,
    /// Nobody has the remote ID.
    NoRemote,
    /// The client has as many connections as it may have.
    ClientFull,
    /// The server has as many connections as it may have.
    ServerFull,
    /// The client dials too often.
    TooOften,
    /// The gateway takes no new connections, because it is about to end.
    Draining,
}

#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clients: IdMap<Client>,
    /// By a number of the registry's own: IDs may be used twice.
    servers: IdMap<Server>,
    /// The servers with an ID, the newest last.
    ids: HashMap<u32, Vec<u32>>,
    connections: IdMap<Connection>,
    last_client: u32,
    last_server: u32,
    last_connection: u32,
    is_draining: bool,
}

/// There are very many.
#[derive(Debug)]
struct Client {
    link: LinkAddr,
    /// Its virtual connections, those included that are being opened.
    connections: u32,
}

#[derive(Debug)]
struct Server {
    id: u32,
    link: LinkAddr,
    /// Its virtual connections, those included that are being opened.
    connections: usize,
    traffic: Arc<Traffic>,
}

/// The ends of a virtual connection, by their numbers here. There are very many.
#[derive(Debug, Clone, Copy)]
struct Connection {
    client: u32,
    server: u32,
}

/// One end of a connection that is dialed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialer {
    pub(crate) side: Side,
    pub(crate) id: u32,
    pub(crate) link: LinkAddr,
}

impl Registry {
    /// Registers a client, and returns its ID; `None` if there are as many as there may be.
    pub(crate) fn add_client(&self, link: LinkAddr, limits: &GatewayLimits) -> Option<u32> {
        let mut inner = self.lock();
        let Inner { clients, last_client, is_draining, .. } = &mut *inner;
        if clients.len() >= limits.clients.min(u32::MAX as usize - 1) || *is_draining {
            return None;
        }
        let id = next_free(last_client, |id| clients.contains_key(&id));
        clients.insert(id, Client { link, connections: 0 });
        Some(id)
    }

    /// Registers a server: from now on it gets the dials to that ID.
    pub(crate) fn add_server(&self, id: u32, link: LinkAddr, traffic: Arc<Traffic>) {
        let mut inner = self.lock();
        let Inner { servers, last_server, .. } = &mut *inner;
        let number = next_free(last_server, |number| servers.contains_key(&number));
        servers.insert(number, Server { id, link, connections: 0, traffic });
        inner.ids.entry(id).or_default().push(number);
    }

    /// Forgets a link. An older server with the same ID gets the dials again.
    pub(crate) fn remove(&self, side: Side, id: u32, link: LinkAddr) {
        let mut inner = self.lock();
        match side {
            Side::Client => {
                if inner.clients.get(&id).is_some_and(|client| client.link == link) {
                    inner.clients.remove(&id);
                    ids::shrink(&mut inner.clients);
                }
            }
            Side::Server => {
                let Inner { servers, ids, .. } = &mut *inner;
                let Some(numbers) = ids.get_mut(&id) else { return };
                numbers.retain(|number| {
                    let is_gone = servers.get(number).is_none_or(|server| server.link == link);
                    if is_gone {
                        servers.remove(number);
                    }
                    !is_gone
                });
                if numbers.is_empty() {
                    ids.remove(&id);
                }
            }
        }
    }

    /// Returns an ID for a new virtual connection.
    pub(crate) fn issue(&self) -> u32 {
        let mut inner = self.lock();
        let Inner { connections, last_connection, .. } = &mut *inner;
        next_free(last_connection, |id| connections.contains_key(&id))
    }

    /// Counts a connection at both of its ends, and returns the link that was dialed.
    pub(crate) fn connect(
        &self,
        connection: u32,
        dialer: Dialer,
        remote: u32,
        limits: &GatewayLimits,
    ) -> Result<LinkAddr, Refusal> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.is_draining {
            return Err(Refusal::Draining);
        }
        if connection == 0 || inner.connections.contains_key(&connection) {
            return Err(Refusal::NotIssued);
        }
        let (client_id, server_id) = match dialer.side {
            Side::Client => (dialer.id, remote),
            Side::Server => (remote, dialer.id),
        };
        let client = inner.clients.get_mut(&client_id).ok_or(Refusal::NoRemote)?;
        let numbers = inner.ids.get(&server_id).ok_or(Refusal::NoRemote)?;
        let is_dialer = |number: &&u32| inner.servers.get(number).is_some_and(|own| own.link == dialer.link);
        let number = match dialer.side {
            Side::Client => numbers.last(),
            Side::Server => numbers.iter().find(is_dialer),
        };
        let number = *number.ok_or(Refusal::NoRemote)?;
        let server = inner.servers.get_mut(&number).ok_or(Refusal::NoRemote)?;
        if client.connections as usize >= limits.connections_per_client.min(u32::MAX as usize) {
            return Err(Refusal::ClientFull);
        }
        if server.connections >= limits.connections_per_server {
            return Err(Refusal::ServerFull);
        }
        client.connections += 1;
        server.connections += 1;
        inner.connections.insert(connection, Connection { client: client_id, server: number });
        Ok(match dialer.side {
            Side::Client => server.link,
            Side::Server => client.link,
        })
    }

    /// A connection is over: takes it from the counts of both ends. Does so once, whichever end tells it first.
    pub(crate) fn disconnect(&self, connection: u32) {
        let mut inner = self.lock();
        let Some(Connection { client, server }) = inner.connections.remove(&connection) else { return };
        ids::shrink(&mut inner.connections);
        if let Some(client) = inner.clients.get_mut(&client) {
            client.connections = client.connections.saturating_sub(1);
        }
        if let Some(server) = inner.servers.get_mut(&server) {
            server.connections = server.connections.saturating_sub(1);
        }
    }

    /// Refuses clients and dials from now on.
    pub(crate) fn drain(&self) {
        self.lock().is_draining = true;
    }

    /// Returns the IDs of the servers, each with its connections, and the numbers of clients and connections.
    pub(crate) fn snapshot(&self) -> GatewaySnapshot {
        let inner = self.lock();
        let servers = inner.ids.values().flat_map(|numbers| {
            let servers = numbers.iter().rev().filter_map(|number| inner.servers.get(number));
            servers.enumerate().map(|(age, server)| ServerEntry {
                id: server.id,
                takes_dials: age == 0,
                connections: server.connections,
                frames: server.traffic.frames.get(),
                bytes: server.traffic.bytes.get(),
            })
        });
        let mut servers: Vec<_> = servers.collect();
        servers.sort_by_key(|server| (server.id, !server.takes_dials));
        GatewaySnapshot { clients: inner.clients.len(), connections: inner.connections.len(), servers }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes of the tables of clients and of connections.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> (usize, usize) {
        let inner = self.lock();
        (ids::memory(&inner.clients), ids::memory(&inner.connections))
    }

    #[cfg(test)]
    pub(crate) fn continue_at(&self, client: u32, connection: u32) {
        let mut inner = self.lock();
        (inner.last_client, inner.last_connection) = (client, connection);
    }
}

/// How many clients and connections, and which servers, a gateway holds at one moment: see
/// [`RunningGateway::snapshot`](crate::RunningGateway::snapshot).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewaySnapshot {
    /// Clients that are connected.
    pub clients: usize,
    /// Virtual connections, those included that are being opened.
    pub connections: usize,
    /// Server links in the order of their IDs, the newest with an ID first.
    pub servers: Vec<ServerEntry>,
}

/// The link of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerEntry {
    /// The ID that it has claimed.
    pub id: u32,
    /// New dials to this ID go to this link; `false` if a newer one has the same ID.
    pub takes_dials: bool,
    /// Its virtual connections.
    pub connections: usize,
    /// Frames that were forwarded from and to this link.
    pub frames: u64,
    /// Bytes of these, headers included.
    pub bytes: u64,
}

/// The number behind `last` that is not 0 and not in use; counts from 1.
fn next_free(last: &mut u32, is_used: impl Fn(u32) -> bool) -> u32 {
    loop {
        *last = last.wrapping_add(1);
        if *last != 0 && !is_used(*last) {
            return *last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(slot: u32) -> LinkAddr {
        LinkAddr { thread: 0, slot, generation: 0 }
    }

    fn limits() -> GatewayLimits {
        GatewayLimits {
            connections_per_client: 2,
            connections_per_server: 3,
            clients: 3,
            ..Default::default()
        }
    }

    fn client(registry: &Registry, slot: u32) -> Option<Dialer> {
        let id = registry.add_client(link(slot), &limits())?;
        Some(Dialer { side: Side::Client, id, link: link(slot) })
    }

    #[test]
    fn ids_count_from_1_and_skip_0_and_those_in_use() {
        let registry = Registry::default();
        assert_eq!((registry.issue(), registry.issue()), (1, 2));
        let dialer = client(&registry, 0).unwrap();
        assert_eq!(dialer.id, 1);
        registry.add_server(7, link(9), Arc::default());
        assert_eq!(registry.connect(1, dialer, 7, &limits()), Ok(link(9)));
        registry.continue_at(u32::MAX - 1, u32::MAX - 1);
        assert_eq!((registry.issue(), registry.issue()), (u32::MAX, 2));
        assert_eq!(client(&registry, 1).map(|dialer| dialer.id), Some(u32::MAX));
        assert_eq!(client(&registry, 2).map(|dialer| dialer.id), Some(2));
        assert!(client(&registry, 3).is_none(), "three clients at most");
    }

    #[test]
    fn both_ends_are_counted_from_either_side_and_given_back_once() {
        let registry = Registry::default();
        let dialer = client(&registry, 0).unwrap();
        registry.add_server(7, link(9), Arc::default());
        let server = Dialer { side: Side::Server, id: 7, link: link(9) };
        assert_eq!(registry.connect(1, dialer, 7, &limits()), Ok(link(9)));
        assert_eq!(registry.connect(1, dialer, 7, &limits()), Err(Refusal::NotIssued));
        assert_eq!(registry.connect(2, server, dialer.id, &limits()), Ok(link(0)));
        assert_eq!(registry.connect(3, server, dialer.id, &limits()), Err(Refusal::ClientFull));
        assert_eq!(registry.connect(3, dialer, 7, &limits()), Err(Refusal::ClientFull));
        let other = client(&registry, 1).unwrap();
        assert_eq!(registry.connect(3, other, 7, &limits()), Ok(link(9)));
        assert_eq!(registry.connect(4, other, 7, &limits()), Err(Refusal::ServerFull));
        for _ in 0..3 {
            registry.disconnect(1);
        }
        assert_eq!(registry.connect(4, other, 7, &limits()), Ok(link(9)));
        assert_eq!(registry.connect(5, dialer, 7, &limits()), Err(Refusal::ServerFull));
        let snapshot = registry.snapshot();
        assert_eq!((snapshot.clients, snapshot.connections), (2, 3));
        assert_eq!(
            snapshot.servers,
            [ServerEntry { id: 7, takes_dials: true, connections: 3, frames: 0, bytes: 0 }]
        );
    }

    #[test]
    fn an_unknown_remote_and_a_connection_id_of_0_are_refused() {
        let registry = Registry::default();
        let dialer = client(&registry, 0).unwrap();
        assert_eq!(registry.connect(1, dialer, 7, &limits()), Err(Refusal::NoRemote));
        registry.add_server(7, link(9), Arc::default());
        assert_eq!(registry.connect(0, dialer, 7, &limits()), Err(Refusal::NotIssued));
        registry.drain();
        assert_eq!(registry.connect(1, dialer, 7, &limits()), Err(Refusal::Draining));
        assert!(client(&registry, 1).is_none());
    }

    #[test]
    fn the_newest_server_with_an_id_takes_the_dials_and_the_older_one_has_them_back() {
        let registry = Registry::default();
        let dialer = client(&registry, 0).unwrap();
        registry.add_server(7, link(8), Arc::default());
        registry.add_server(7, link(9), Arc::default());
        assert_eq!(registry.connect(1, dialer, 7, &limits()), Ok(link(9)));
        registry.remove(Side::Server, 7, link(9));
        registry.disconnect(1);
        assert_eq!(registry.connect(2, dialer, 7, &limits()), Ok(link(8)));
        // The older one may still dial while a newer one is there.
        registry.add_server(7, link(10), Arc::default());
        let older = Dialer { side: Side::Server, id: 7, link: link(8) };
        assert_eq!(registry.connect(3, older, dialer.id, &limits()), Ok(link(0)));
        let connections: Vec<_> =
            registry.snapshot().servers.iter().map(|server| server.connections).collect();
        assert_eq!(connections, [0, 2]);
    }
}

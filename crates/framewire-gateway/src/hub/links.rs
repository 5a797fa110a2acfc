//! Links that come and go, and what one of them sends.

use std::{sync::Arc, time::Duration};

use framewire::SessionId;

use super::{Hub, Link, LinkEnd, LinkSlot, Meter};
use crate::{
    Side,
    counters::Traffic,
    ids,
    protocol::{Command, split},
    queue::NO_END,
};

/// Connection IDs that a server may have been given and not dialed yet; older ones are forgotten.
const ISSUED_TO_SERVER: usize = 4096;
/// Connections that were closed lately and are remembered, for each link of a server. They are searched one by one, but
/// only for frames of connections that the link has not.
const MOST_CLOSED: usize = 4096;
/// Bytes of commands that may wait beside a full queue.
const COMMANDS: usize = 64 * 1024;

impl Hub {
    /// Adds a client; `None` if there are as many as there may be.
    pub(crate) fn add_client(&mut self, session: SessionId) -> Option<LinkSlot> {
        let slot = self.add(session, Side::Client, 0);
        let added = self.addr(slot).and_then(|addr| self.shared.registry.add_client(addr, &self.limits));
        match added {
            Some(id) => {
                if let Some(link) = self.links.get_mut(slot as usize) {
                    link.id = id;
                }
                self.own.counters.clients.add(1);
                Some(slot)
            }
            None => {
                self.links.remove(slot as usize);
                self.own.counters.clients_refused.add(1);
                None
            }
        }
    }

    /// Adds a server, which has proved its key and claims `id`.
    pub(crate) fn add_server(&mut self, session: SessionId, id: u32) -> LinkSlot {
        let slot = self.add(session, Side::Server, id);
        let traffic = Arc::<Traffic>::default();
        if let Some(link) = self.links.get_mut(slot as usize) {
            link.traffic = Some(traffic.clone());
        }
        if let Some(addr) = self.addr(slot) {
            self.shared.registry.add_server(id, addr, traffic);
        }
        self.own.counters.servers.add(1);
        slot
    }

    fn add(&mut self, session: SessionId, side: Side, id: u32) -> LinkSlot {
        self.generation = self.generation.wrapping_add(1);
        let link = Link {
            session,
            side,
            id,
            generation: self.generation,
            first: NO_END,
            ids: None,
            queue: None,
            traffic: None,
            holds: 0,
            is_dirty: false,
            is_stuck: false,
            strays: Meter::default(),
            dials: Meter::default(),
        };
        self.links.insert(link) as LinkSlot
    }

    /// A link is over: closes its connections, and tells their other ends.
    pub(crate) fn remove(&mut self, slot: LinkSlot) {
        let Some(addr) = self.addr(slot) else { return };
        let waits = self.waiting(slot);
        self.sent(slot, waits);
        let Some(link) = self.links.get(slot as usize) else { return };
        self.shared.registry.remove(link.side, link.id, addr);
        // An end that is removed is taken out of the list.
        while let Some(end) = self.links.get(slot as usize).map(|link| link.first) {
            if self.remove_end(end, true).is_none() {
                break;
            }
        }
        self.links.try_remove(slot as usize);
        ids::shrink_slab(&mut self.links);
    }

    /// Handles one whole frame that a link has received.
    ///
    /// # Errors
    /// The link has to end.
    pub(crate) fn frame(&mut self, slot: LinkSlot, frame: &[u8]) -> Result<(), LinkEnd> {
        let Some((conn, payload)) = split(frame) else {
            return Err(self.violated("a frame without a connection ID"));
        };
        if conn != 0 {
            return self.forward(slot, conn, frame);
        }
        match Command::decode(payload) {
            Ok(Command::New) => self.issue(slot),
            Ok(Command::Dial { conn, remote }) => self.dial(slot, conn, remote),
            Ok(Command::Close { conn }) => self.close(slot, conn),
            Ok(Command::Ping) => {}
            Ok(Command::Open { .. } | Command::Refuse { .. } | Command::Accept { .. }) => {
                return Err(self.violated("a command that only the gateway sends"));
            }
            Err(_) => return Err(self.violated("a command that is cut off or unknown")),
        }
        Ok(())
    }

    fn violated(&self, what: &'static str) -> LinkEnd {
        self.own.counters.violations.add(1);
        LinkEnd::Violation(what)
    }

    /// Gives a link a connection ID. Stores nothing but the ID, and forgets old ones that were never dialed.
    fn issue(&mut self, slot: LinkSlot) {
        let conn = self.shared.registry.issue();
        self.put_back(slot, conn);
        self.command(slot, Command::Open { conn });
    }

    /// Makes a connection ID one that the link may dial.
    pub(super) fn put_back(&mut self, slot: LinkSlot, conn: u32) {
        let most = match self.links.get(slot as usize).map(|link| link.side) {
            Some(Side::Client) => 2 * self.limits.connections_per_client,
            _ => ISSUED_TO_SERVER,
        };
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let ids = link.ids.get_or_insert_default();
        while ids.issued.len() >= most.max(1) {
            ids.issued.pop_front();
        }
        ids.issued.push_back(conn);
    }

    /// Remembers for a while that a connection of this link was closed.
    pub(super) fn remember_closed(&mut self, slot: LinkSlot, conn: u32) {
        let most = match self.links.get(slot as usize).map(|link| link.side) {
            Some(Side::Client) => self.limits.connections_per_client.min(MOST_CLOSED),
            _ => MOST_CLOSED,
        };
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let ids = link.ids.get_or_insert_default();
        while ids.closed.len() >= most.max(1) {
            ids.closed.pop_front();
        }
        ids.closed.push_back(conn);
    }

    /// Sends a command to the peer of a link.
    pub(super) fn command(&mut self, slot: LinkSlot, command: Command) {
        let frame = command.frame();
        let most = self.queue_limit(slot) + COMMANDS;
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let queue = link.queue.get_or_insert_with(|| self.queues.take(link.side));
        if queue.len() + frame.len() <= most {
            queue.push(NO_END, &frame);
        } else if !link.is_stuck {
            link.is_stuck = true;
            self.own.counters.links_stuck.add(1);
        }
        self.mark(slot);
    }

    /// Bytes that may wait for a link.
    pub(super) fn queue_limit(&self, slot: LinkSlot) -> usize {
        match self.links.get(slot as usize).map(|link| link.side) {
            Some(Side::Client) => self.limits.client_queue,
            _ => self.limits.server_queue,
        }
    }

    /// Returns after how much silence a peer is pinged.
    pub(crate) fn ping_interval(&self) -> Duration {
        self.limits.ping_interval
    }

    pub(crate) fn count_refused_server(&self) {
        self.own.counters.servers_refused.add(1);
    }

    pub(crate) fn count_silent_link(&self) {
        self.own.counters.links_silent.add(1);
    }

    /// Returns the session of a link.
    pub(crate) fn session(&self, slot: LinkSlot) -> Option<SessionId> {
        self.links.get(slot as usize).map(|link| link.session)
    }

    /// Returns `true` if the link is not to be read from.
    pub(crate) fn is_held(&self, slot: LinkSlot) -> bool {
        self.links.get(slot as usize).is_some_and(|link| link.holds > 0)
    }

    /// Returns why the link has to end, if it has to.
    pub(crate) fn ending(&self, slot: LinkSlot) -> Option<LinkEnd> {
        self.links.get(slot as usize)?.is_stuck.then_some(LinkEnd::Stuck)
    }

    /// Returns the client's number or the server's ID.
    pub(crate) fn id(&self, slot: LinkSlot) -> Option<u32> {
        self.links.get(slot as usize).map(|link| link.id)
    }

    /// Closes up to `most` connections of this thread's clients. Returns how many there were.
    pub(crate) fn close_some(&mut self, most: usize) -> usize {
        let is_of_client =
            |link: LinkSlot| self.links.get(link as usize).is_some_and(|link| link.side == Side::Client);
        let open = self.ends.iter().filter(|(_, end)| end.is_live() && is_of_client(end.link));
        let chosen: Vec<_> = open.map(|(_, end)| (end.link, end.conn)).take(most).collect();
        chosen.iter().for_each(|(link, conn)| self.close(*link, *conn));
        chosen.len()
    }

    #[cfg(test)]
    pub(crate) fn link_counts(&self) -> (usize, usize) {
        (self.links.len(), self.ends.len())
    }
}

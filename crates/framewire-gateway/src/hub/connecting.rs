//! Virtual connections that are opened and closed.

use super::{End, Hold, Hub, LinkSlot, Stage, second};
use crate::{
    Side, ids,
    protocol::Command,
    queue::{EndSlot, NO_END},
    registry::{Dialer, LinkAddr, Refusal},
    threads::{EndAddr, Message},
};

impl Hub {
    /// The peer of a link dials.
    pub(super) fn dial(&mut self, slot: LinkSlot, conn: u32, remote: u32) {
        match self.try_dial(slot, conn, remote) {
            Ok(target) => self.begin(slot, conn, remote, target),
            Err(refusal) => {
                self.count_refusal(refusal);
                self.command(slot, Command::Refuse { conn });
            }
        }
    }

    fn try_dial(&mut self, slot: LinkSlot, conn: u32, remote: u32) -> Result<LinkAddr, Refusal> {
        let addr = self.addr(slot).ok_or(Refusal::NoRemote)?;
        let link = self.links.get_mut(slot as usize).ok_or(Refusal::NoRemote)?;
        let ids = link.ids.as_mut().ok_or(Refusal::NotIssued)?;
        let issued = ids.issued.iter().position(|issued| *issued == conn).ok_or(Refusal::NotIssued)?;
        if link.side == Side::Client && link.dials.count(second()) > self.limits.dials_per_second {
            return Err(Refusal::TooOften);
        }
        let dialer = Dialer { side: link.side, id: link.id, link: addr };
        let target = self.shared.registry.connect(conn, dialer, remote, &self.limits)?;
        ids.issued.remove(issued);
        if ids.issued.is_empty() && ids.closed.is_empty() {
            link.ids = None;
        }
        Ok(target)
    }

    fn begin(&mut self, slot: LinkSlot, conn: u32, remote: u32, target: LinkAddr) {
        let Some(dialer_id) = self.id(slot) else { return };
        let end = self.add_end(slot, conn, Stage::Dialing { remote });
        let dialer = EndAddr { thread: self.thread, end };
        self.tell(target.thread, Message::Connect { conn, target, dialer, dialer_id }, &[]);
    }

    fn count_refusal(&self, refusal: Refusal) {
        let counters = &self.own.counters;
        let counter = match refusal {
            Refusal::NotIssued => &counters.refused_not_issued,
            Refusal::NoRemote => &counters.refused_no_remote,
            Refusal::ClientFull => &counters.refused_client_full,
            Refusal::ServerFull => &counters.refused_server_full,
            Refusal::TooOften => &counters.refused_too_often,
            Refusal::Draining => &counters.refused_draining,
        };
        counter.add(1);
    }

    fn add_end(&mut self, link: LinkSlot, conn: u32, stage: Stage) -> EndSlot {
        let (mut next, mut side) = (NO_END, Side::Server);
        let slot = self.ends.vacant_key() as EndSlot;
        if let Some(link) = self.links.get_mut(link as usize) {
            next = std::mem::replace(&mut link.first, slot);
            side = link.side;
        }
        if let Some(next) = self.ends.get_mut(next as usize) {
            next.previous = slot;
        }
        self.ends.insert(End {
            conn,
            link,
            next,
            previous: NO_END,
            queued: 0,
            stage,
            held: 0,
            holding: false,
        });
        self.conns.entry(conn).or_default().0[side.index()] = slot;
        slot
    }

    /// Takes an end out of the list of its link and out of the connections.
    fn unlink(&mut self, slot: EndSlot) {
        let Some(end) = self.ends.get(slot as usize) else { return };
        let End { conn, link, next, previous, .. } = *end;
        if let Some(next) = self.ends.get_mut(next as usize) {
            next.previous = previous;
        }
        match self.ends.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => {
                if let Some(link) = self.links.get_mut(link as usize) {
                    link.first = next;
                }
            }
        }
        let Some(ends) = self.conns.get_mut(&conn) else { return };
        ends.0.iter_mut().filter(|end| **end == slot).for_each(|end| *end = NO_END);
        if ends.0 == [NO_END; 2] {
            self.conns.remove(&conn);
            ids::shrink(&mut self.conns);
        }
    }

    /// Frees the place of an end that is over and for which nothing waits.
    pub(super) fn free_end(&mut self, slot: EndSlot) {
        self.ends.try_remove(slot as usize);
        ids::shrink_slab(&mut self.ends);
    }

    /// A link of this thread was dialed.
    pub(super) fn accept(&mut self, conn: u32, target: LinkAddr, dialer: EndAddr, dialer_id: u32) {
        if self.addr(target.slot) != Some(target) {
            self.tell(dialer.thread, Message::Refused { end: dialer.end, conn }, &[]);
            return;
        }
        let is_client = self.is_client(target.slot);
        let EndAddr { thread, end } = dialer;
        let stage = if is_client { Stage::Open { thread, end } } else { Stage::Waiting { thread, end } };
        let end = self.add_end(target.slot, conn, stage);
        if is_client {
            self.opened(target.slot, conn, dialer_id);
        }
        let peer = EndAddr { thread: self.thread, end };
        self.tell(dialer.thread, Message::Connected { end: dialer.end, conn, peer }, &[]);
    }

    /// The other end of a connection that was dialed here is there.
    pub(super) fn connected(&mut self, slot: EndSlot, conn: u32, peer: EndAddr) {
        let dialed = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn);
        let Some((end, remote)) = dialed.and_then(|end| match end.stage {
            Stage::Dialing { remote } => Some((end, remote)),
            _ => None,
        }) else {
            self.tell(peer.thread, Message::Close { end: peer.end, conn }, &[]);
            return;
        };
        end.stage = Stage::Open { thread: peer.thread, end: peer.end };
        let link = end.link;
        if self.is_client(link) {
            self.opened(link, conn, remote);
            let client = self.id(link).unwrap_or_default();
            self.tell(peer.thread, Message::Confirm { end: peer.end, conn, client }, &[]);
        } else {
            self.command(link, Command::Accept { conn, remote });
        }
    }

    /// The client that has dialed was told that the connection is open: now the server is.
    pub(super) fn confirmed(&mut self, slot: EndSlot, conn: u32, client: u32) {
        let waiting = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn);
        let Some(waiting) = waiting else { return };
        let Stage::Waiting { thread, end } = waiting.stage else { return };
        waiting.stage = Stage::Open { thread, end };
        let link = waiting.link;
        self.command(link, Command::Accept { conn, remote: client });
    }

    /// The link that was dialed is gone.
    pub(super) fn refused(&mut self, slot: EndSlot, conn: u32) {
        let Some(end) = self.ends.get(slot as usize).filter(|end| end.conn == conn) else { return };
        let Stage::Dialing { .. } = end.stage else { return };
        let link = end.link;
        self.unlink(slot);
        self.free_end(slot);
        self.shared.registry.disconnect(conn);
        self.put_back(link, conn);
        self.count_refusal(Refusal::NoRemote);
        self.command(link, Command::Refuse { conn });
    }

    fn opened(&mut self, link: LinkSlot, conn: u32, remote: u32) {
        self.own.counters.opened.add(1);
        self.command(link, Command::Accept { conn, remote });
    }

    /// The peer of a link closes one of its connections. Silence if it has no such connection.
    pub(super) fn close(&mut self, slot: LinkSlot, conn: u32) {
        if let Some(end) = self.links.get(slot as usize).and_then(|link| self.end_of(slot, link.side, conn)) {
            self.close_both(end);
        }
    }

    /// Returns the end of a connection on this link. For a link that has none, the connection does not exist.
    #[inline]
    pub(super) fn end_of(&self, slot: LinkSlot, side: Side, conn: u32) -> Option<EndSlot> {
        let end = self.conns.get(&conn)?.0[side.index()];
        self.ends.get(end as usize).is_some_and(|end| end.link == slot).then_some(end)
    }

    /// Closes a connection: both peers are told.
    pub(super) fn close_both(&mut self, slot: EndSlot) {
        if let Some((link, conn)) = self.remove_end(slot, true) {
            self.command(link, Command::Close { conn });
        }
    }

    /// The other end of a connection was closed.
    pub(super) fn closed_by_peer(&mut self, slot: EndSlot, conn: u32) {
        if self.ends.get(slot as usize).is_none_or(|end| end.conn != conn) {
            return;
        }
        if let Some((link, conn)) = self.remove_end(slot, false) {
            self.command(link, Command::Close { conn });
        }
    }

    /// Removes an end, and tells the other one if asked to. Returns its link and its connection, unless it was over
    /// already. What waits for it is still sent.
    pub(super) fn remove_end(&mut self, slot: EndSlot, tell_peer: bool) -> Option<(LinkSlot, u32)> {
        let end = self.ends.get_mut(slot as usize).filter(|end| end.is_live())?;
        let (link, conn, peer, held) = (end.link, end.conn, end.peer(), end.held);
        (end.stage, end.held) = (Stage::Gone, 0);
        let is_over = end.queued == 0;
        self.unlink(slot);
        if is_over {
            self.free_end(slot);
        }
        self.shared.registry.disconnect(conn);
        if peer.is_some() && self.is_client(link) {
            self.own.counters.closed.add(1);
        }
        self.remember_closed(link, conn);
        self.unhold(link, held.count_ones());
        if let Some(peer) = peer.filter(|_| tell_peer) {
            self.tell(peer.thread, Message::Close { end: peer.end, conn }, &[]);
        }
        Some((link, conn))
    }

    pub(super) fn is_client(&self, slot: LinkSlot) -> bool {
        self.links.get(slot as usize).is_some_and(|link| link.side == Side::Client)
    }
}

impl End {
    /// Returns `true` unless it is over.
    pub(super) fn is_live(&self) -> bool {
        self.stage != Stage::Gone
    }

    pub(super) fn is_held(&self, hold: Hold) -> bool {
        self.held & hold as u8 != 0
    }

    /// Returns the other end, if there is one.
    pub(super) fn peer(&self) -> Option<EndAddr> {
        match self.stage {
            Stage::Open { thread, end } | Stage::Waiting { thread, end } => Some(EndAddr { thread, end }),
            Stage::Dialing { .. } | Stage::Gone => None,
        }
    }
}

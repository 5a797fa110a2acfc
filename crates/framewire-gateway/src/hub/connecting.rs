//! Virtual connections that are opened and closed.

use super::{End, Hub, LinkSlot, Place, Stage, second};
use crate::{
    Side,
    protocol::Command,
    queue::EndSlot,
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
        let issued = link.issued.iter().position(|issued| *issued == conn).ok_or(Refusal::NotIssued)?;
        if link.side == Side::Client && link.dials.count(second()) > self.limits.dials_per_second {
            return Err(Refusal::TooOften);
        }
        let dialer = Dialer { side: link.side, id: link.id, link: addr };
        let target = self.shared.registry.connect(conn, dialer, remote, &self.limits)?;
        link.issued.remove(issued);
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
        let end = End { conn, link, queued: 0, stage, held: 0, holding: false };
        let slot = self.ends.insert(end) as EndSlot;
        if let Some(link) = self.links.get_mut(link as usize) {
            link.conns.insert(conn, Place::End(slot));
        }
        slot
    }

    /// A link of this thread was dialed.
    pub(super) fn accept(&mut self, conn: u32, target: LinkAddr, dialer: EndAddr, dialer_id: u32) {
        if self.addr(target.slot) != Some(target) {
            self.tell(dialer.thread, Message::Refused { end: dialer.end, conn }, &[]);
            return;
        }
        let is_client = self.is_client(target.slot);
        let stage = if is_client {
            Stage::Open { peer: dialer }
        } else {
            Stage::Waiting { peer: dialer, client: dialer_id }
        };
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
        end.stage = Stage::Open { peer };
        let link = end.link;
        if self.is_client(link) {
            self.opened(link, conn, remote);
            self.tell(peer.thread, Message::Confirm { end: peer.end, conn }, &[]);
        } else {
            self.command(link, Command::Accept { conn, remote });
        }
    }

    /// The client that has dialed was told that the connection is open: now the server is.
    pub(super) fn confirmed(&mut self, slot: EndSlot, conn: u32) {
        let Some(end) = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn) else { return };
        let Stage::Waiting { peer, client } = end.stage else { return };
        end.stage = Stage::Open { peer };
        let link = end.link;
        self.command(link, Command::Accept { conn, remote: client });
    }

    /// The link that was dialed is gone.
    pub(super) fn refused(&mut self, slot: EndSlot, conn: u32) {
        let Some(end) = self.ends.get(slot as usize).filter(|end| end.conn == conn) else { return };
        let Stage::Dialing { .. } = end.stage else { return };
        let link = end.link;
        self.ends.remove(slot as usize);
        if let Some(link) = self.links.get_mut(link as usize) {
            link.conns.remove(&conn);
        }
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
        let place = self.links.get(slot as usize).and_then(|link| link.conns.get(&conn));
        if let Some(Place::End(end)) = place {
            self.close_both(*end);
        }
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
        if end.queued == 0 {
            self.ends.remove(slot as usize);
        }
        self.shared.registry.disconnect(conn);
        if peer.is_some() && self.is_client(link) {
            self.own.counters.closed.add(1);
        }
        self.remember_closed(link, conn);
        self.unhold(link, held);
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

    /// Returns the other end, if there is one.
    pub(super) fn peer(&self) -> Option<EndAddr> {
        match self.stage {
            Stage::Open { peer } | Stage::Waiting { peer, .. } => Some(peer),
            Stage::Dialing { .. } | Stage::Gone => None,
        }
    }
}

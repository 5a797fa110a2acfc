//! Frames of virtual connections, and who is not read from while they wait.

use super::{Hold, Hub, LinkEnd, LinkSlot, Stage, second};
use crate::{
    Side,
    protocol::Command,
    queue::{EndSlot, NO_END},
    threads::{EndAddr, Message},
};

impl Hub {
    /// Forwards a frame of a connection.
    ///
    /// # Errors
    /// The link has to end: it sends too many frames for connections that it is no end of.
    pub(super) fn forward(&mut self, slot: LinkSlot, conn: u32, frame: &[u8]) -> Result<(), LinkEnd> {
        let Some(link) = self.links.get(slot as usize) else { return Ok(()) };
        let place = self.conns.get(&conn).map_or(NO_END, |ends| ends.0[link.side.index()]);
        let Some(end) = self.ends.get(place as usize).filter(|end| end.link == slot) else {
            if link.ids.as_ref().is_some_and(|ids| ids.closed.contains(&conn)) {
                self.own.counters.late.add(1);
                return Ok(());
            }
            return self.stray(slot, conn);
        };
        let (is_on_the_road, Stage::Open { thread, end: peer }) = (end.is_held(Hold::Road), end.stage) else {
            return self.stray(slot, conn);
        };
        if let Some(traffic) = &link.traffic {
            traffic.add(frame.len());
        }
        self.own.counters.frames.add(1);
        self.own.counters.bytes.add(frame.len() as u64);
        if thread == self.thread {
            self.deliver(peer, conn, frame);
            return Ok(());
        }
        let message = Message::Frame { end: peer, conn, len: frame.len() as u32 };
        if self.tell(thread, message, frame) > self.limits.thread_queue && !is_on_the_road {
            // Until the other thread has taken what waits.
            self.hold(place, conn, Hold::Road);
            let from = EndAddr { thread: self.thread, end: place };
            self.tell(thread, Message::Echo { from, conn }, &[]);
        }
        Ok(())
    }

    /// A link sends for a connection that is not its own, or not open yet: for all that it knows, it is closed.
    fn stray(&mut self, slot: LinkSlot, conn: u32) -> Result<(), LinkEnd> {
        self.own.counters.strays.add(1);
        let most = self.limits.strays_per_second;
        let Some(link) = self.links.get_mut(slot as usize) else { return Ok(()) };
        if link.strays.count(second()) > most {
            self.own.counters.links_strayed.add(1);
            return Err(LinkEnd::Strays);
        }
        self.command(slot, Command::Close { conn });
        Ok(())
    }

    /// Queues a frame for the link of this end.
    pub(super) fn deliver(&mut self, slot: EndSlot, conn: u32, frame: &[u8]) {
        let Some(end) = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn && end.is_live())
        else {
            return self.own.counters.late.add(1);
        };
        let Some(link) = self.links.get_mut(end.link as usize) else { return };
        let (side, limits) = (link.side, &*self.limits);
        let most = match side {
            Side::Client => limits.client_queue,
            Side::Server => limits.server_queue,
        };
        let queue = link.queue.get_or_insert_with(|| self.queues.take(side));
        let over = |queued: usize, most| queued > 0 && queued.saturating_add(frame.len()) > most;
        // Few frames are longer than a field of 32 bits counts.
        let connection_queue = limits.connection_queue.min(u32::MAX as usize);
        if over(end.queued as usize, connection_queue) || over(queue.len(), most) {
            let more = match (side, end.peer()) {
                (Side::Client, _) => 0,
                (Side::Server, Some(peer)) if peer.thread != self.thread => limits.road(),
                // The client is held behind this frame.
                (Side::Server, _) => limits.frame(),
            };
            let beyond = |most: usize| most.saturating_add(more).min(u32::MAX as usize);
            if over(end.queued as usize, beyond(connection_queue)) || over(queue.len(), beyond(most)) {
                self.own.counters.overflows.add(1);
                return self.close_both(slot);
            }
        }
        if let Some(traffic) = &link.traffic {
            traffic.add(frame.len());
        }
        queue.push(slot, frame);
        end.queued = end.queued.saturating_add(frame.len() as u32);
        let is_high = end.queued as usize > connection_queue / 2 || queue.len() > most / 2;
        let mut hold = None;
        if side == Side::Server && is_high && !end.holding {
            end.holding = true;
            queue.holding.push(slot);
            hold = end.peer();
        }
        let link = end.link;
        self.mark(link);
        if let Some(peer) = hold {
            self.tell(peer.thread, Message::Hold { end: peer.end, conn }, &[]);
        }
    }

    /// The other side of this end asks that its link is not read from.
    pub(super) fn hold(&mut self, slot: EndSlot, conn: u32, hold: Hold) {
        let held = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn && end.is_live());
        let Some(end) = held.filter(|end| !end.is_held(hold)) else { return };
        end.held |= hold as u8;
        let slot = end.link;
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        link.holds += 1;
        if link.holds == 1 {
            self.own.counters.holds.add(1);
            self.mark(slot);
        }
    }

    /// Undoes a [`hold`](Self::hold).
    pub(super) fn release(&mut self, slot: EndSlot, conn: u32, hold: Hold) {
        let held = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn && end.is_held(hold));
        let Some(end) = held else { return };
        end.held &= !(hold as u8);
        let link = end.link;
        self.unhold(link, 1);
    }

    pub(super) fn unhold(&mut self, slot: LinkSlot, times: u32) {
        let Some(link) = self.links.get_mut(slot as usize).filter(|_| times > 0) else { return };
        link.holds = link.holds.saturating_sub(times);
        if link.holds == 0 {
            self.mark(slot);
        }
    }

    /// Returns how many bytes wait for a link.
    pub(crate) fn waiting(&self, slot: LinkSlot) -> usize {
        self.links.get(slot as usize).and_then(|link| link.queue.as_ref()).map_or(0, |queue| queue.len())
    }

    /// Returns the whole frames to send next on a link, at most `room` bytes or one frame.
    pub(crate) fn front(&self, slot: LinkSlot, room: usize) -> &[u8] {
        let queue = self.links.get(slot as usize).and_then(|link| link.queue.as_ref());
        queue.map_or(&[], |queue| queue.front(room))
    }

    /// `len` bytes, which [`front`](Self::front) has returned, were sent.
    pub(crate) fn sent(&mut self, slot: LinkSlot, len: usize) {
        let Some(mut queue) = self.links.get_mut(slot as usize).and_then(|link| link.queue.take()) else {
            return;
        };
        queue.remove(len, |slot, len| {
            let Some(end) = self.ends.get_mut(slot as usize) else { return };
            end.queued = end.queued.saturating_sub(len);
            if end.queued == 0 && !end.is_live() {
                self.free_end(slot);
            }
        });
        let mut holding = std::mem::take(&mut queue.holding);
        if !holding.is_empty() && queue.len() <= self.queue_limit(slot) / 4 {
            holding.retain(|end| !self.let_go(*end, slot));
        }
        queue.holding = holding;
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        if queue.is_empty() {
            self.queues.give_back(link.side, queue);
        } else {
            link.queue = Some(queue);
        }
    }

    /// Lets the peer of this end be read from if little enough waits here. Returns `true` if it does not hold any more.
    fn let_go(&mut self, slot: EndSlot, link: LinkSlot) -> bool {
        let end = self.ends.get_mut(slot as usize).filter(|end| end.link == link && end.holding);
        let Some(end) = end else { return true };
        if end.queued as usize > self.limits.connection_queue / 4 {
            return false;
        }
        end.holding = false;
        if let Some(peer) = end.peer() {
            let conn = end.conn;
            self.tell(peer.thread, Message::Release { end: peer.end, conn }, &[]);
        }
        true
    }
}

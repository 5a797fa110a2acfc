//! Frames of virtual connections, and who is not read from while they wait.

use super::{Hub, LinkEnd, LinkSlot, Place, Stage, second};
use crate::{
    Side,
    protocol::Command,
    queue::EndSlot,
    threads::{EndAddr, Message},
};

impl Hub {
    /// Forwards a frame of a connection.
    ///
    /// # Errors
    /// The link has to end: it sends too many frames for connections that it is no end of.
    pub(super) fn forward(&mut self, slot: LinkSlot, conn: u32, frame: &[u8]) -> Result<(), LinkEnd> {
        let Some(link) = self.links.get(slot as usize) else { return Ok(()) };
        let end = match link.conns.get(&conn).copied() {
            Some(Place::End(end)) => end,
            Some(Place::Closed) => {
                self.own.counters.late.add(1);
                return Ok(());
            }
            None => return self.stray(slot, conn),
        };
        let Some(Stage::Open { peer }) = self.ends.get(end as usize).map(|end| end.stage) else {
            return self.stray(slot, conn);
        };
        if let Some(traffic) = &link.traffic {
            traffic.add(frame.len());
        }
        self.own.counters.frames.add(1);
        self.own.counters.bytes.add(frame.len() as u64);
        if peer.thread == self.thread {
            self.deliver(peer.end, conn, frame);
            return Ok(());
        }
        let message = Message::Frame { end: peer.end, conn, len: frame.len() as u32 };
        if self.tell(peer.thread, message, frame) > self.limits.thread_queue {
            // Until the other thread has taken what waits.
            self.hold(end, conn);
            let from = EndAddr { thread: self.thread, end };
            self.tell(peer.thread, Message::Echo { from, conn }, &[]);
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
        let queue = link.queue.get_or_insert_with(|| self.queues.pop().unwrap_or_default());
        let over = |queued: usize, most| queued > 0 && queued.saturating_add(frame.len()) > most;
        if over(end.queued, limits.connection_queue) || over(queue.len(), most) {
            self.own.counters.overflows.add(1);
            return self.close_both(slot);
        }
        if let Some(traffic) = &link.traffic {
            traffic.add(frame.len());
        }
        queue.push(Some(slot), frame);
        end.queued += frame.len();
        let is_high = end.queued > limits.connection_queue / 2 || queue.len() > most / 2;
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
    pub(super) fn hold(&mut self, slot: EndSlot, conn: u32) {
        let held = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn && end.is_live());
        let Some(end) = held else { return };
        end.held += 1;
        let slot = end.link;
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        link.holds += 1;
        if link.holds == 1 {
            self.own.counters.holds.add(1);
            self.mark(slot);
        }
    }

    /// Undoes one [`hold`](Self::hold).
    pub(super) fn release(&mut self, slot: EndSlot, conn: u32) {
        let held = self.ends.get_mut(slot as usize).filter(|end| end.conn == conn && end.held > 0);
        let Some(end) = held else { return };
        end.held -= 1;
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
        let ends = &mut self.ends;
        queue.remove(len, |slot, len| {
            let Some(end) = ends.get_mut(slot as usize) else { return };
            end.queued = end.queued.saturating_sub(len);
            if end.queued == 0 && !end.is_live() {
                ends.remove(slot as usize);
            }
        });
        let mut holding = std::mem::take(&mut queue.holding);
        if !holding.is_empty() && queue.len() <= self.queue_limit(slot) / 4 {
            holding.retain(|end| !self.let_go(*end, slot));
        }
        queue.holding = holding;
        if queue.is_empty() {
            self.keep_queue(queue);
        } else if let Some(link) = self.links.get_mut(slot as usize) {
            link.queue = Some(queue);
        }
    }

    /// Lets the peer of this end be read from if little enough waits here. Returns `true` if it does not hold any more.
    fn let_go(&mut self, slot: EndSlot, link: LinkSlot) -> bool {
        let end = self.ends.get_mut(slot as usize).filter(|end| end.link == link && end.holding);
        let Some(end) = end else { return true };
        if end.queued > self.limits.connection_queue / 4 {
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

//! Between a session and its socket: what the session asks for is one system call each.

use std::io::{self, ErrorKind, IoSlice};

use super::{Ready, Sys};
use crate::{
    buffer::{MAX_SLICES, Outbox, Scratch},
    framing::Framing,
    handler::PacketHandler,
    shard::{Drained, Visit},
};

/// Keeps in mind what happened to a session that is served later.
pub(super) fn note<H: PacketHandler, F: Framing, T>(ready: &Ready, visit: &mut Visit<'_, H, F, T>) {
    if ready.writable {
        visit.handle_writable();
    }
    if ready.readable || ready.hangup || ready.error {
        visit.handle_readable(ready.hangup || ready.error);
    }
}

/// Receives and hands out until the kernel has no more, the session wants no more, or it has had its share.
#[inline]
pub(super) fn receive<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    scratch: &mut Scratch,
    mut budget: usize,
    visit: &mut Visit<'_, H, F, Y::Stream>,
) {
    while let Some(io) = visit.poll_reading() {
        let space = scratch.space();
        let room = space.len();
        let cost = match sys.recv(io, space) {
            Ok(0) => return visit.handle_end(),
            Ok(n) => {
                visit.handle_received(scratch, n);
                if n < room && visit.handle_drained(Drained::ShortRead) {
                    return;
                }
                n
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                visit.handle_drained(Drained::WouldBlock);
                return;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => room,
            Err(error) => return visit.handle_failed(error),
        };
        budget = budget.saturating_sub(cost);
        if budget == 0 || visit.has_had_its_share() {
            return visit.handle_budget_spent();
        }
    }
}

/// Writes what the session has to write, and takes the next step if it is closing.
#[inline]
pub(super) fn settle<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    visit: &mut Visit<'_, H, F, Y::Stream>,
) {
    if visit.replies_wait() {
        return;
    }
    visit.begin_settling();
    while let Some((io, outbox)) = visit.poll_transmit() {
        let sent = transmit(sys, io, outbox);
        visit.handle_sent(sent);
    }
    if let Some(io) = visit.poll_shutdown() {
        if let Err(error) = sys.shutdown_write(io) {
            visit.handle_failed(error);
        }
    }
}

/// A session that is not read from would not find out that its connection has failed.
#[cold]
pub(super) fn find_error<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    visit: &mut Visit<'_, H, F, Y::Stream>,
) {
    if let Some(error) = sys.take_error(visit.io()) {
        visit.handle_broken(error);
    }
}

/// One system call: `send` for a single chunk, `writev` for several.
#[inline(always)]
fn transmit<Y: Sys>(sys: &mut Y, io: &mut Y::Stream, outbox: &Outbox) -> io::Result<usize> {
    match outbox.single() {
        Some(bytes) => sys.send(io, bytes),
        None => transmit_vectored(sys, io, outbox),
    }
}

fn transmit_vectored<Y: Sys>(sys: &mut Y, io: &mut Y::Stream, outbox: &Outbox) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let count = outbox.slices(&mut slices);
    sys.send_vectored(io, slices.get(..count).unwrap_or_default())
}

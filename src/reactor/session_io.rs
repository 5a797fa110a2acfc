//! Between a session and its socket: what the session asks for is one system call each.

use std::io::{self, ErrorKind, IoSlice};

use super::{Ready, Sys};
use crate::{
    buffer::{MAX_SLICES, ReceiveBuffer},
    framing::Framing,
    handler::PacketHandler,
    session::{InputExhausted, Slices, Transmit},
    shard::{FanOut, SessionAccess},
};

/// Records what happened to a session that is served later.
pub(super) fn note<H: PacketHandler, F: Framing, T>(ready: &Ready, access: &mut SessionAccess<'_, H, F, T>) {
    if ready.writable {
        access.handle_writable();
    }
    if ready.readable || ready.hangup || ready.error {
        access.handle_readable(ready.hangup || ready.error);
    }
}

/// Handles an event of a session: by far the most common one, and then the rest.
///
/// An ordinary session is one of which nothing is known but that it has input. It costs one read, its packets, and one
/// write of all replies. As soon as anything else shows, the general way goes on from there.
#[inline(always)]
pub(super) fn handle_event<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    buffer: &mut ReceiveBuffer,
    budget: usize,
    ready: &Ready,
    access: &mut SessionAccess<'_, H, F, Y::Stream>,
) {
    // One test for the three.
    if ready.hangup | ready.error | !ready.readable || !access.is_ordinary() {
        return handle_other_event(sys, buffer, budget, ready, access);
    }
    let space = buffer.space();
    let room = space.len();
    match sys.recv(access.io(), space) {
        Ok(n) if n > 0 && n < room => access.handle_ordinary(buffer, n),
        read => {
            access.handle_readable(false);
            let mut budget = budget;
            if handle_read(buffer, &mut budget, access, read) {
                receive(sys, buffer, budget, access);
            }
        }
    }
    if let Some((io, bytes)) = access.poll_sole_transmit() {
        let len = bytes.len();
        match sys.send(io, bytes) {
            Ok(n) if n == len => return access.handle_sole_sent(n),
            sent => {
                access.handle_sent(sent);
            }
        }
    }
    flush(sys, access);
}

/// Handles an event of any session.
#[inline(never)]
fn handle_other_event<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    buffer: &mut ReceiveBuffer,
    budget: usize,
    ready: &Ready,
    access: &mut SessionAccess<'_, H, F, Y::Stream>,
) {
    if access.is_waiting() {
        // It is served once, when its turn in the queue comes.
        note(ready, access);
    } else {
        if ready.writable && access.handle_writable() {
            flush(sys, access);
        }
        if ready.readable || ready.hangup || ready.error {
            access.handle_readable(ready.hangup || ready.error);
            serve(sys, buffer, budget, access);
        }
    }
    if ready.error {
        find_error(sys, access);
    }
}

/// Sends the packets of a fan-out to a session, and writes them: to do so in the same visit spares another one.
#[inline(always)]
pub(super) fn pass_on<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    fan_out: &mut FanOut,
    access: &mut SessionAccess<'_, H, F, Y::Stream>,
) {
    if let Some((io, frames)) = access.poll_direct(fan_out) {
        let sent = sys.send(io, frames);
        if access.handle_direct_sent(sent, fan_out) {
            return;
        }
    } else {
        access.take_from(fan_out);
    }
    flush(sys, access);
}

/// Receives and hands out packets, then writes the replies.
#[inline(never)]
pub(super) fn serve<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    buffer: &mut ReceiveBuffer,
    budget: usize,
    access: &mut SessionAccess<'_, H, F, Y::Stream>,
) {
    receive(sys, buffer, budget, access);
    write(sys, access);
}

/// Writes what the session has to write, and takes the next step if it is closing.
#[inline(never)]
pub(super) fn flush<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    access: &mut SessionAccess<'_, H, F, Y::Stream>,
) {
    write(sys, access);
}

/// Receives and hands out until the kernel has no more, the session wants no more, or its share of the turn is used up.
#[inline(never)]
fn receive<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    buffer: &mut ReceiveBuffer,
    mut budget: usize,
    access: &mut SessionAccess<'_, H, F, Y::Stream>,
) {
    while let Some(io) = access.poll_reading() {
        let read = sys.recv(io, buffer.space());
        if !handle_read(buffer, &mut budget, access, read) {
            return;
        }
    }
}

/// Handles the kernel's result for one read. Returns `true` if the session may read on in this turn.
#[inline(always)]
fn handle_read<H: PacketHandler, F: Framing, T>(
    buffer: &mut ReceiveBuffer,
    budget: &mut usize,
    access: &mut SessionAccess<'_, H, F, T>,
    read: io::Result<usize>,
) -> bool {
    let room = buffer.space().len();
    let cost = match read {
        Ok(0) => {
            access.handle_end();
            return false;
        }
        Ok(n) => {
            access.handle_received(buffer, n);
            if n == room {
                buffer.grow();
            } else if access.handle_exhausted(InputExhausted::ShortRead) {
                return false;
            }
            n
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            access.handle_exhausted(InputExhausted::WouldBlock);
            return false;
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => room,
        Err(error) => {
            access.handle_failed(error);
            return false;
        }
    };
    *budget = budget.saturating_sub(cost);
    let goes_on = *budget > 0 && !access.has_had_its_share();
    if !goes_on {
        access.handle_budget_spent();
    }
    goes_on
}

#[inline(always)]
fn write<Y: Sys, H: PacketHandler, F: Framing>(sys: &mut Y, access: &mut SessionAccess<'_, H, F, Y::Stream>) {
    if access.replies_wait() {
        return;
    }
    access.begin_flush();
    while let Some((io, bytes)) = access.poll_transmit() {
        let sent = transmit(sys, io, &bytes);
        if access.handle_sent(sent) {
            break;
        }
    }
    if let Some(io) = access.poll_shutdown() {
        if let Err(error) = sys.shutdown_write(io) {
            access.handle_failed(error);
        }
    }
}

/// Without this, a session that is not read from would not find out that its connection has failed.
#[cold]
pub(super) fn find_error<Y: Sys, H: PacketHandler, F: Framing>(
    sys: &mut Y,
    access: &mut SessionAccess<'_, H, F, Y::Stream>,
) {
    if let Some(error) = sys.take_error(access.io()) {
        access.handle_broken(error);
    }
}

/// One system call: `send` for a single chunk, `writev` for several.
#[inline(always)]
fn transmit<Y: Sys>(sys: &mut Y, io: &mut Y::Stream, bytes: &Transmit<'_>) -> io::Result<usize> {
    match bytes {
        Transmit::Slice(slice) => sys.send(io, slice),
        Transmit::Slices(slices) => transmit_vectored(sys, io, slices),
    }
}

#[inline(never)]
fn transmit_vectored<Y: Sys>(sys: &mut Y, io: &mut Y::Stream, slices: &Slices<'_>) -> io::Result<usize> {
    let mut space = [IoSlice::new(&[]); MAX_SLICES];
    sys.send_vectored(io, slices.fill(&mut space))
}

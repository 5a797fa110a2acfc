//! What the parts of a turn may take, of a service whose sessions are streams and of one whose peers share sockets.

use crate::time::Tick;

/// How long each part of a turn may take before the rest of it waits for the next turn (milliseconds). Together they
/// are below the 20 ms in which every session is to be served once; a slow callback adds its own time. Services of one
/// thread that are busy at the same time share it, but each gets a millisecond.
pub(super) const ACCEPT_SHARE: Tick = 2;
pub(super) const READ_SHARE: Tick = 10;
pub(super) const COMMAND_SHARE: Tick = 2;
pub(super) const TIMER_SHARE: Tick = 2;
pub(super) const WRITE_SHARE: Tick = 2;
/// The most commands executed in one turn, however fast they are.
pub(super) const COMMANDS_PER_TURN: usize = 1024;
/// A turn that takes longer than this counts as slow (milliseconds).
pub(super) const SLOW_TURN: Tick = 100;

use std::io;

use super::Rng;

/// What the network may do besides working. All but the last two are chances in 1,000.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// An event that nothing caused.
    pub(crate) spurious: u32,
    /// An event for a stream that was closed before.
    pub(crate) stale: u32,
    /// "Would block" in spite of readiness; an event follows.
    pub(crate) would_block: u32,
    /// A read or write of 1 to 16 bytes; after such a read an event follows.
    pub(crate) short: u32,
    /// A call that is interrupted.
    pub(crate) interrupt: u32,
    /// An event that comes 1 to 5 ms late.
    pub(crate) late: u32,
    /// A client's reset where it would have ended its side.
    pub(crate) reset: u32,
    /// A jump of the clock by up to 50 ms when a poll returns.
    pub(crate) jump: u32,
    /// A batch in another order than that in which things happened.
    pub(crate) shuffle: u32,
    /// An end without the announcement of something to read.
    pub(crate) bare_hangup: u32,
    /// A datagram that does not arrive.
    pub(crate) lose: u32,
    /// A datagram that arrives before all that wait.
    pub(crate) overtake: u32,
    /// A datagram that arrives twice.
    pub(crate) repeat: u32,
    /// An earlier datagram that was refused on its way, which the next call to receive finds.
    pub(crate) refuse: u32,
    /// A listener, by its descriptor, whose every accept fails, and with what.
    pub(crate) forbidden: Option<(usize, i32)>,
    /// The one call that fails.
    pub(crate) fail: Option<Fail>,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// A random half of them, each more or less likely.
    pub(crate) fn swarm(rng: &mut Rng) -> Self {
        let mut faults = Self::none();
        let each = [
            &mut faults.spurious,
            &mut faults.stale,
            &mut faults.would_block,
            &mut faults.short,
            &mut faults.interrupt,
            &mut faults.late,
            &mut faults.reset,
            &mut faults.jump,
            &mut faults.shuffle,
            &mut faults.bare_hangup,
        ];
        for fault in each {
            *fault = if rng.chance(500) { rng.between(10, 400) as u32 } else { 0 };
        }
        faults
    }

    /// Adds faults of datagrams.
    pub(crate) fn with_datagrams(mut self, rng: &mut Rng) -> Self {
        for fault in [&mut self.lose, &mut self.overtake, &mut self.repeat, &mut self.refuse] {
            *fault = if rng.chance(500) { rng.between(10, 300) as u32 } else { 0 };
        }
        self
    }
}

/// The `nth` call of a kind (counted from 1) fails with this error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fail {
    /// `None`: of any kind but poll.
    pub(crate) call: Option<Call>,
    pub(crate) nth: u64,
    pub(crate) errno: i32,
}

/// The calls of [`Sys`](crate::reactor::Sys) and [`Platform`](crate::runtime::Platform) that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Poll,
    Register,
    Accept,
    LocalAddr,
    Recv,
    Send,
    Shutdown,
    Connect,
    FinishConnect,
    Reregister,
    Spare,
    /// Of the platform: the poll of a new event loop.
    NewPoll,
    /// Of the platform: a thread is started.
    Spawn,
}

impl Call {
    pub(crate) const ALL: [Self; 13] = [
        Self::Poll,
        Self::Register,
        Self::Accept,
        Self::LocalAddr,
        Self::Recv,
        Self::Send,
        Self::Shutdown,
        Self::Connect,
        Self::FinishConnect,
        Self::Reregister,
        Self::Spare,
        Self::NewPoll,
        Self::Spawn,
    ];
}

/// How often each call was made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    counts: [u64; Call::ALL.len()],
}

impl Calls {
    pub(crate) fn of(&self, call: Call) -> u64 {
        self.counts[call as usize]
    }

    pub(crate) fn but_poll(&self) -> u64 {
        self.counts.iter().sum::<u64>() - self.of(Call::Poll)
    }

    /// Counts a call. Returns the error if this call is to fail.
    pub(crate) fn note(&mut self, call: Call, fail: Option<Fail>) -> io::Result<()> {
        self.counts[call as usize] += 1;
        let Some(fail) = fail else { return Ok(()) };
        let hit = match fail.call {
            Some(which) => which == call && self.of(call) == fail.nth,
            None => call != Call::Poll && self.but_poll() == fail.nth,
        };
        if hit { Err(error(fail.errno)) } else { Ok(()) }
    }
}

pub(crate) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Error numbers of Linux.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const EINTR: i32 = 4;
    pub(crate) const EBADF: i32 = 9;
    pub(crate) const EAGAIN: i32 = 11;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const ENFILE: i32 = 23;
    pub(crate) const EMFILE: i32 = 24;
    pub(crate) const EPIPE: i32 = 32;
    pub(crate) const EPROTO: i32 = 71;
    pub(crate) const ENETUNREACH: i32 = 101;
    pub(crate) const ECONNABORTED: i32 = 103;
    pub(crate) const ECONNRESET: i32 = 104;
    pub(crate) const ENOBUFS: i32 = 105;
    pub(crate) const EMSGSIZE: i32 = 90;
    pub(crate) const ECONNREFUSED: i32 = 111;
}

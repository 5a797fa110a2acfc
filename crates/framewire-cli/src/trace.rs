use std::fmt::{self, Display};
use std::io::{self, Write};
use std::time::Instant;

use crate::show::Show;

/// What happens, as it happens: one line each on standard output, with the seconds since the start.
///
/// ```text
///    0.000213 >      5  hello
///    0.000398 <      5  hello
/// ```
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    start: Instant,
    show: Show,
    /// Most bytes shown of a packet.
    most: usize,
}

/// Which way a packet went.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    /// From this side.
    Sent,
    /// From the peer.
    Received,
}

impl Trace {
    /// Bytes shown of a packet unless the user says otherwise: three lines of a terminal in text, ten in hex.
    pub(crate) const MOST: usize = 256;

    pub(crate) fn new(show: Show, most: Option<usize>) -> Self {
        Self { start: Instant::now(), show, most: most.unwrap_or(Self::MOST) }
    }

    pub(crate) fn packet(&self, direction: Direction, packet: &[u8]) -> io::Result<()> {
        let shown = self.show.content(packet, self.most);
        self.line(format_args!("{direction} {:>6}  {shown}", packet.len()))
    }

    /// A packet of one of many sessions.
    pub(crate) fn packet_of(
        &self,
        session: impl Display,
        direction: Direction,
        packet: &[u8],
    ) -> io::Result<()> {
        let shown = self.show.content(packet, self.most);
        self.line(format_args!("{session} {direction} {:>6}  {shown}", packet.len()))
    }

    /// Anything else. The text is to be one line.
    pub(crate) fn line(&self, text: fmt::Arguments<'_>) -> io::Result<()> {
        // The clock is read under the lock, so that lines of several threads stand in the order of their times.
        let mut out = io::stdout().lock();
        writeln!(out, "{:>11.6} {text}", self.start.elapsed().as_secs_f64())?;
        out.flush()
    }
}

impl Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => ">",
            Self::Received => "<",
        })
    }
}

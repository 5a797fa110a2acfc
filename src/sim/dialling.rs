//! The far ends of connections that the process makes.

use std::io::{self, ErrorKind};

use super::{
    Call, Conn, Net,
    faults::{errno, error},
    network::What,
};
use crate::{addr::Addr, reactor::Connecting, time::Tick};

/// What becomes of a connection to some address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept,
    /// With this error.
    Refuse(i32),
    /// Its packets are lost.
    Silence,
    /// It is accepted, and reset a millisecond later.
    Reset,
    /// A Unix socket whose queue is full.
    QueueFull,
    /// The process is connected to itself.
    Itself,
}

/// A connection that the process has begun to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) at: Tick,
    pub(crate) to: Addr,
    pub(crate) conn: Conn,
}

impl Net {
    /// Says what becomes of connections to this address, and after how long. All others are refused at once.
    pub(crate) fn answer(&mut self, at: &Addr, answer: Answer, after: Tick) {
        self.far_ends.insert(at.clone(), (answer, after));
    }

    /// Says what is found when this host is looked up, and after how long. Nothing is known of others.
    pub(crate) fn name(&mut self, host: &str, addrs: Result<Vec<Addr>, ErrorKind>, after: Tick) {
        self.names.insert(host.to_owned(), (addrs, after));
    }

    /// The connections that the process has begun to make, in order.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.clone()
    }

    /// The process still waits for an answer.
    pub(crate) fn is_undecided(&self, conn: Conn) -> bool {
        let link = &self.links[conn.0];
        link.connecting && link.server.is_some()
    }

    /// It was accepted, and is not to be reset.
    pub(crate) fn was_accepted(&self, attempt: &Attempt) -> bool {
        let answer = self.far_ends.get(&attempt.to).map(|(answer, _)| *answer);
        !self.links[attempt.conn.0].connecting && answer == Some(Answer::Accept)
    }

    /// All loops turn once more.
    pub(crate) fn wake_all(&mut self) {
        self.progress += 1;
        self.epolls.iter_mut().filter(|epoll| !epoll.closed).for_each(|epoll| epoll.woken = true);
    }

    pub(super) fn connect_to(&mut self, to: &Addr) -> io::Result<(usize, Connecting)> {
        self.begin(Call::Connect)?;
        let refused = (Answer::Refuse(errno::ECONNREFUSED), 0);
        let (answer, after) = self.far_ends.get(to).copied().unwrap_or(refused);
        if answer == Answer::QueueFull {
            return Err(error(errno::EAGAIN));
        }
        let conn = self.new_link();
        self.attempts.push(Attempt { at: self.now, to: to.clone(), conn });
        let link = self.link(conn);
        (link.connecting, link.dialled) = (true, true);
        let fd = self.open(What::Stream(conn)).map_err(error)?;
        self.progress += 1;
        let link = self.link(conn);
        link.server = Some(fd);
        if let (Answer::Itself, Addr::Ip(own)) = (answer, to) {
            link.addr = *own;
        }
        if to.ip().is_none() {
            // A Unix socket does not take its time.
            self.answer_dial(conn, answer);
            if let Some(failed) = self.link(conn).error.take() {
                self.close(fd);
                return Err(error(failed));
            }
            return Ok((fd, Connecting::Done));
        }
        let due = self.now + after;
        self.at(due, move |net| net.answer_dial(conn, answer));
        Ok((fd, Connecting::UnderWay))
    }

    fn answer_dial(&mut self, conn: Conn, answer: Answer) {
        let due = self.now + 1;
        let link = self.link(conn);
        if link.server.is_none() {
            return;
        }
        match answer {
            Answer::Silence | Answer::QueueFull => return,
            Answer::Refuse(why) => link.break_with(why),
            Answer::Accept | Answer::Itself => {}
            Answer::Reset => self.at(due, move |net| net.reset(conn)),
        }
        self.link(conn).connecting = false;
        self.edge_of(conn);
    }

    pub(super) fn finish_connect(&mut self, fd: usize) -> io::Result<Connecting> {
        self.begin(Call::FinishConnect)?;
        let conn = self.conn_of(fd);
        let link = self.link(conn);
        if let Some(failed) = link.error.take() {
            return Err(error(failed));
        }
        Ok(if link.connecting { Connecting::UnderWay } else { Connecting::Done })
    }

    pub(super) fn reregister(&mut self, fd: usize, token: u64) -> io::Result<()> {
        self.begin(Call::Reregister)?;
        let descriptor = self.fds.get_mut(fd).and_then(Option::as_mut);
        let registration = descriptor.and_then(|descriptor| descriptor.registration.as_mut());
        registration.ok_or_else(|| error(errno::EBADF))?.token = token;
        self.edge(fd);
        Ok(())
    }
}

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::machine::{self, Cores};

/// How long a server may take until it listens.
const STARTUP: Duration = Duration::from_secs(15);
/// How long a server may take to end when told so, before it is killed.
const FAREWELL: Duration = Duration::from_secs(2);
/// How much of what a server writes to its standard error is kept for an error report; bytes.
const KEPT: usize = 2048;
/// How long the end of that is waited for once the server has ended: what it has started may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a server did not start, or is no more.
#[derive(Debug, Error)]
pub(crate) enum ChildError {
    #[error("cannot start {program}: {source}")]
    Spawn { program: String, source: std::io::Error },
    #[error("the server ended by itself ({status}){said}")]
    Ended { status: ExitStatus, said: String },
    #[error("the server did not listen on 127.0.0.1:{port} within {} s{said}", STARTUP.as_secs())]
    Deaf { port: u16, said: String },
    #[error("the server did not say its port within {} s{said}", STARTUP.as_secs())]
    Silent { said: String },
}

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub program: std::path::PathBuf,
    pub args: Vec<String>,
    pub listens: Listens,
}

/// How it is known where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listens {
    /// It says `port N` on its standard output once it does.
    Says,
    /// It was told this port: try until it accepts. Our keeper says `pid N` when it has started it.
    At(u16),
}

/// A server in a process of its own.
///
/// It ends with its standard input, so that it is stopped even when this process is killed; dropping it stops it.
#[derive(Debug)]
pub(crate) struct ServerChild {
    child: Child,
    stdin: Option<ChildStdin>,
    /// The process to be measured: the child, or what it started for us.
    pid: u32,
    addr: SocketAddr,
    said: ErrorOutput,
}

impl ServerChild {
    /// Starts the server on its cores and waits until it listens.
    pub(crate) fn start(launch: &Launch, server: &Cores, own: &[usize]) -> Result<Self, ChildError> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = spawn_on(&mut command, server, own)
            .map_err(|source| ChildError::Spawn { program: launch.program.display().to_string(), source })?;
        let said = keep_the_end(child.stderr.take());
        let lines = lines_of(child.stdout.take());
        let mut this =
            Self { pid: 0, stdin: child.stdin.take(), child, addr: (Ipv4Addr::LOCALHOST, 0).into(), said };
        this.wait_until_it_listens(&lines, launch.listens)?;
        Ok(this)
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The process to be measured.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// An error when the server has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), ChildError> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                self.said.wait_for_the_end();
                Err(ChildError::Ended { status, said: self.said() })
            }
            _ => Ok(()),
        }
    }

    /// Gives a server that is about to end the time to do so, then says whether it has.
    pub(crate) fn check_alive_after(&mut self, grace: Duration) -> Result<(), ChildError> {
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            self.check_alive()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        self.check_alive()
    }

    fn wait_until_it_listens(
        &mut self,
        lines: &Receiver<String>,
        listens: Listens,
    ) -> Result<(), ChildError> {
        let deadline = Instant::now() + STARTUP;
        loop {
            match lines.recv_timeout(Duration::from_millis(10)) {
                Ok(line) => self.take_line(&line),
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(10)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.check_alive()?;
            match listens {
                Listens::Says if self.addr.port() != 0 => {
                    self.pid = self.child.id();
                    return Ok(());
                }
                Listens::At(port) if self.pid != 0 && self.answers_at(port) => {
                    return self.check_alive_after(Duration::from_millis(20));
                }
                _ => {}
            }
            if Instant::now() > deadline {
                let said = self.said();
                return Err(match listens {
                    Listens::At(port) => ChildError::Deaf { port, said },
                    Listens::Says => ChildError::Silent { said },
                });
            }
        }
    }

    fn answers_at(&mut self, port: u16) -> bool {
        self.addr.set_port(port);
        TcpStream::connect_timeout(&self.addr, Duration::from_millis(200)).is_ok()
    }

    fn take_line(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("port", port)) => self.addr.set_port(port.trim().parse().unwrap_or(0)),
            Some(("pid", pid)) => self.pid = pid.trim().parse().unwrap_or(self.pid),
            _ => {}
        }
    }

    /// The end of what the server wrote to its standard error.
    fn said(&self) -> String {
        let said = self.said.kept();
        let text = String::from_utf8_lossy(&said);
        match text.trim() {
            "" => String::new(),
            text => format!("; it said: {text}"),
        }
    }
}

impl Drop for ServerChild {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process inherits the cores of the thread that starts it, so this thread moves there and back.
pub(super) fn spawn_on(command: &mut Command, cores: &Cores, own: &[usize]) -> std::io::Result<Child> {
    let Some(list) = cores.list() else { return command.spawn() };
    machine::pin_thread(list);
    let child = command.spawn();
    machine::pin_thread(own);
    child
}

fn lines_of(from: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(from) = from {
        // ends with the server; goes on reading when the output is no longer used, so that the server never blocks on a
        // full pipe
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    receiver
}

/// The end of what a server writes to its standard error, read by a thread of its own.
#[derive(Debug)]
struct ErrorOutput {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Disconnected once everything was read.
    end: Receiver<()>,
}

impl ErrorOutput {
    fn kept(&self) -> Vec<u8> {
        self.kept.lock().map(|kept| kept.clone()).unwrap_or_default()
    }

    /// A process can be gone before what it wrote last was read.
    fn wait_for_the_end(&self) {
        let _ = self.end.recv_timeout(LAST_WORDS);
    }
}

fn keep_the_end(from: Option<impl Read + Send + 'static>) -> ErrorOutput {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (reading, end) = channel();
    if let Some(mut from) = from {
        let kept = Arc::clone(&kept);
        std::thread::spawn(move || {
            let mut chunk = [0; 1024];
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                if let Ok(mut kept) = kept.lock() {
                    kept.extend_from_slice(chunk.get(..n).unwrap_or_default());
                    let excess = kept.len().saturating_sub(KEPT);
                    kept.drain(..excess);
                }
            }
            drop(reading);
        });
    }
    ErrorOutput { kept, end }
}

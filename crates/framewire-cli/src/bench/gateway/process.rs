//! The processes of a measurement of a gateway.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::drive::Role;
use crate::bench::child::spawn_on;
use crate::bench::error::BenchError;
use crate::bench::machine::Cores;
use crate::bench::process::Process;

/// A process that tells us lines. It is killed when it is dropped.
struct PipedProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
    name: String,
}

impl PipedProcess {
    fn start(command: &mut Command, cores: &Cores, own: &[usize], name: String) -> Result<Self, BenchError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let spawned = spawn_on(command, cores, own);
        let mut child =
            spawned.map_err(|source| BenchError::Peer { name: name.clone(), why: source.to_string() })?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            return Err(BenchError::Peer { name, why: "it has no standard output".into() });
        };
        Ok(Self { child, stdin, lines: BufReader::new(stdout), name })
    }

    fn fail(&self, why: impl Into<String>) -> BenchError {
        BenchError::Peer { name: self.name.clone(), why: why.into() }
    }

    /// Reads the next line.
    fn line(&mut self) -> Result<String, BenchError> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Err(self.fail("it has ended; what it said is above")),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(self.fail(error.to_string())),
        }
    }
}

impl Drop for PipedProcess {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway that is open to all, with addresses of its own.
pub(super) struct Gateway {
    process: PipedProcess,
    clients: SocketAddr,
    servers: SocketAddr,
}

impl Gateway {
    pub(super) fn start(program: &Path, cores: &Cores, own: &[usize]) -> Result<Self, BenchError> {
        const ANY: &str = "127.0.0.1:0";
        let args = ["--open-to-all", "--clients", ANY, "--servers", ANY, "--log-level", "warn"];
        let name = program.display().to_string();
        let mut process = PipedProcess::start(Command::new(program).args(args), cores, own, name)?;
        let mut addr = |before: &str| {
            let line = process.line()?;
            let addr = line.strip_prefix(before).and_then(|addr| addr.parse().ok());
            addr.ok_or_else(|| {
                process.fail(format!(
                    "it said {line:?} where a framewire-gateway says {before:?} and an address"
                ))
            })
        };
        let (clients, servers) = (addr("clients at ")?, addr("servers at ")?);
        Ok(Self { process, clients, servers })
    }

    pub(super) fn clients(&self) -> SocketAddr {
        self.clients
    }

    pub(super) fn servers(&self) -> SocketAddr {
        self.servers
    }

    pub(super) fn process(&self) -> Process {
        Process::new(self.process.child.id())
    }
}

/// A process of peers.
pub(super) struct Driver(PipedProcess);

impl Driver {
    /// Starts it, and waits until all of its peers are connected.
    pub(super) fn start(role: Role, to: SocketAddr, count: usize, size: usize) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::NoSelf)?;
        let mut command = Command::new(program);
        command.args(["drive", role.name(), &to.to_string(), &count.to_string(), &size.to_string()]);
        let process = PipedProcess::start(
            &mut command,
            &Cores::anywhere(1),
            &[],
            format!("the process of {}", role.name()),
        )?;
        let mut driver = Self(process);
        match driver.0.line()?.as_str() {
            "ready" => Ok(driver),
            other => Err(driver.0.fail(format!("it said {other:?}"))),
        }
    }

    /// Begins a run.
    pub(super) fn begin(&mut self, pipeline: usize, time: Duration) -> Result<(), BenchError> {
        let line = format!("{pipeline} {}\n", time.as_millis());
        let written = self.0.stdin.as_mut().map(|stdin| stdin.write_all(line.as_bytes()));
        match written {
            Some(Ok(())) => Ok(()),
            _ => Err(self.0.fail("it has ended; what it said is above")),
        }
    }

    /// Waits for the end of a run. Returns the replies that came.
    pub(super) fn replies(&mut self) -> Result<u64, BenchError> {
        let line = self.0.line()?;
        line.parse().map_err(|_| self.0.fail(format!("it said {line:?}")))
    }
}

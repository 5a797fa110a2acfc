//! A gateway in a process of its own, and what the system knows of it.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use framewire_gateway::Dialect;

/// No reply takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is measured; killed when it is dropped.
pub(crate) struct Measured {
    pub(crate) child: Child,
}

impl Measured {
    /// Nanoseconds of processor time that all of its threads have taken.
    pub(crate) fn cpu(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("Linux");
        let of = |path: PathBuf| -> u64 {
            let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
        };
        tasks.map(|task| of(task.expect("readable").path())).sum()
    }

    /// Bytes of memory that are its own.
    pub(crate) fn memory(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).expect("Linux");
        let line = rollup.lines().find(|line| line.starts_with("Pss:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("Linux").count()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway that is open to all, and where it listens.
pub(crate) struct Gateway {
    pub(crate) process: Measured,
    pub(crate) clients: SocketAddr,
    pub(crate) servers: SocketAddr,
    page: SocketAddr,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        const ANY: &str = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_framewire-gateway"))
            .args(["--open-to-all", "--clients", ANY, "--servers", ANY, "--admin", ANY, "--log-level", "off"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut addr = |before: &str| {
            let line = lines.next().expect("a line").expect("a text");
            let addr = line.strip_prefix(before).expect("an address").trim_end_matches('/');
            addr.parse().expect("an address")
        };
        let [clients, servers, page] = ["clients at ", "servers at ", "page at http://"].map(&mut addr);
        Self { process: Measured { child }, clients, servers, page }
    }

    /// What its status page says.
    pub(crate) fn status(&self) -> serde_json::Value {
        let mut stream = TcpStream::connect(self.page).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.write_all(b"GET /status.json HTTP/1.1\r\n\r\n").expect("written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a text");
        serde_json::from_str(reply.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
    }

    /// One of its counters.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().expect("a counter")
    }

    /// Connects a server.
    pub(crate) fn server(&self, id: u32) -> TcpStream {
        let mut stream = TcpStream::connect(self.servers).expect("connected");
        let mut challenge = [0; 8];
        stream.read_exact(&mut challenge).expect("a challenge");
        stream.write_all(&Dialect::Md5.answer(&challenge, &[0; 16], b"", id)).expect("written");
        stream
    }
}

//! The program in a process of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command as Program, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{KEY, PATIENCE, Peer, wait_until};

/// The program as it runs; killed if a test fails.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) dir: Dir,
}

/// A directory for the files of one test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("framewire-gateway-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn program() -> Program {
    let mut program = Program::new(env!("CARGO_BIN_EXE_framewire-gateway"));
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

impl Running {
    /// Starts it with a key and these lines at the head of its file.
    pub(crate) fn start(name: &str, head: &str) -> Self {
        let dir = Dir::new(name);
        let keys = dir.write("keys", KEY);
        let text = format!(
            "{head}\n[clients]\nlisten = [\"127.0.0.1:0\"]\n[[servers]]\nlisten = \"127.0.0.1:0\"\nkeys = {keys:?}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n"
        );
        let file = dir.write("gateway.toml", &text);
        let mut child = program().arg("--config").arg(file).spawn().expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines, dir }
    }

    /// Reads where it listens: for clients, servers and readers of the page.
    pub(crate) fn addrs(&mut self) -> [SocketAddr; 3] {
        ["clients at ", "servers at ", "page at http://"].map(|before| {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("a line");
            let addr = line.strip_prefix(before).unwrap_or_else(|| panic!("{line:?}"));
            addr.trim_end().trim_end_matches('/').parse().expect("an address")
        })
    }

    pub(crate) fn signal(&self, signal: i32) {
        let signal = Signal::try_from(signal).expect("a signal");
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("sent");
    }

    /// What its page says.
    pub(crate) fn status(page: SocketAddr) -> serde_json::Value {
        let reply = get(page, "/status.json");
        serde_json::from_str(reply.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
    }

    /// Descriptors that it has open.
    #[cfg(target_os = "linux")]
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("Linux").count()
    }

    /// Bytes of memory that are its own.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).expect("Linux");
        let line = rollup.lines().find(|line| line.starts_with("Pss:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Waits for its end. Returns its status and what it has logged.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).expect("a text");
        (status.code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn server(addr: SocketAddr, page: SocketAddr, key: &str, id: u32) -> Peer {
    let mut server = Peer::connect(addr);
    server.prove(key.as_bytes(), id);
    wait_until(|| get(page, "/status.json").contains(&format!("\"id\":{id},")));
    server
}

pub(crate) fn get(page: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(page).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {page}\r\nAccept: */*\r\n\r\n").expect("written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a text");
    reply
}

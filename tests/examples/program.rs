use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up; far more than it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `examples/<name>` to its end, which must be one without an error, and returns the lines that it printed.
pub(crate) fn printed(name: &str, args: &[&str]) -> Vec<String> {
    let path = built(name);
    let output = Command::new(&path).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// An example that runs as a process. Dropping it kills it.
pub(crate) struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    pub(crate) addr: SocketAddr,
    /// What it printed before it told its address.
    pub(crate) printed: Vec<String>,
}

impl Program {
    /// Starts `examples/<name>` and waits for the line that tells its address.
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let mut program = Self::run(name, args);
        let line = program.line_with("listening on ");
        let addr = line.trim_start_matches("listening on ");
        program.addr = addr.parse().unwrap_or_else(|error| panic!("{name}: {line:?}: {error}"));
        program
    }

    /// Starts `examples/<name>`, which listens nowhere.
    pub(crate) fn run(name: &str, args: &[&str]) -> Self {
        let path = built(name);
        let mut child = Command::new(&path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; `cargo build --examples` builds it", path.display())
            });
        let lines = follow(child.stdout.take().expect("stdout is piped"));
        Self { name: name.into(), child, lines, addr: ([0, 0, 0, 0], 0).into(), printed: Vec::new() }
    }

    /// The next line of its output that holds `text`.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => self.printed.push(line),
                Err(error) => panic!("{}: no line with {text:?}: {error}", self.name),
            }
        }
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.addr)
    }

    /// Connects and is reset, at once or a moment later.
    #[track_caller]
    pub(crate) fn expect_refusal(&self) {
        match TcpStream::connect_timeout(&self.addr, PATIENCE) {
            Ok(stream) => Peer::new(stream).expect_end(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(told.success(), "{}: cannot signal {pid}", self.name);
    }

    /// Waits for an end without an error; all that it still printed.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("{}: does not end at SIGTERM: {error}", self.name),
            }
        }
        let status = self.child.wait().expect("the process is ours");
        assert!(status.success(), "{}: {status}", self.name);
        rest
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails when it has ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until the answer is yes.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// One connection to a program.
pub(crate) struct Peer(BufReader<TcpStream>);

impl Peer {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&addr, PATIENCE).expect("the program listens"))
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_nodelay(true).expect("a TCP stream");
        Self(BufReader::new(stream))
    }

    /// As the program sees it.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.get_ref().local_addr().expect("connected")
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("the program reads");
    }

    pub(crate) fn send_end(&mut self) {
        self.0.get_ref().shutdown(Shutdown::Write).expect("connected");
    }

    /// Reads exactly as many bytes as are expected, and compares.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let want = bytes.as_ref();
        let mut got = vec![0; want.len()];
        if let Err(error) = self.0.read_exact(&mut got) {
            panic!("{error} instead of \"{}\"", want.escape_ascii());
        }
        assert!(got == want, "\"{}\" instead of \"{}\"", got.escape_ascii(), want.escape_ascii());
    }

    /// Reads exactly so many bytes.
    #[cfg(any(feature = "deflate", feature = "prometheus"))]
    #[track_caller]
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut got = vec![0; len];
        if let Err(error) = self.0.read_exact(&mut got) {
            panic!("{error} instead of {len} bytes");
        }
        got
    }

    /// The next line, without its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        if let Err(error) = self.0.read_line(&mut line) {
            panic!("{error} instead of a line; so far: {line:?}");
        }
        line.trim_end().to_owned()
    }

    /// No more bytes come, and the stream ends (by a reset or in order).
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        match self.0.read(&mut [0; 16]) {
            Ok(0) => {}
            Ok(more) => panic!("{more} bytes instead of the end"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

/// Cargo puts examples beside the directory of the test programs.
fn built(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Reads the output on a thread of its own, so that nobody waits for it longer than he wants.
fn follow(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

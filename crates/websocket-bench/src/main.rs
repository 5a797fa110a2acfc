//! `cargo run --release -p websocket-bench [-- --rounds N]`: CPU time per echoed WebSocket message of framewire,
//! tokio-tungstenite and Go's gorilla/websocket, each a process on one thread; with `--instructions` also framewire's
//! instructions of user space, by callgrind (a copy by one repeating instruction counts as many there, so that others
//! cannot be compared).
//!
//! The load writes so many messages to each of its connections, and then reads all replies, which it compares. The rounds
//! are interleaved: what disturbs one disturbs all. CPU time is that of the whole process, kernel included, by
//! `/proc/PID/schedstat` of its threads; the median of the rounds is shown, with the least and the greatest.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

mod contestants;

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const CONNECTIONS: usize = 50;
/// How long each contestant is measured in a round.
const WINDOW: Duration = Duration::from_secs(1);
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("websocket-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [serve, name] = &args[..] {
        if serve == "serve" {
            return contestants::serve(name);
        }
    }
    let mut rounds = 5;
    let mut counts_instructions = false;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--rounds" => rounds = rest.next().ok_or("--rounds needs a number")?.parse()?,
            "--instructions" => counts_instructions = true,
            other => return Err(format!("no such option: {other}").into()),
        }
    }
    let names = contestants_here();
    println!("| messages | {} |", names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for (size, depth) in [(64, 1), (64, 16), (16 * 1024, 1), (16 * 1024, 16)] {
        let mut figures = vec![Vec::new(); names.len()];
        for _ in 0..rounds {
            for ((_, command), figures) in names.iter().zip(&mut figures) {
                figures.push(cpu_per_message(command, size, depth)?);
            }
        }
        let shown: Vec<String> = figures.into_iter().map(median).collect();
        println!("| {size} B, {depth} in flight, µs of CPU | {} |", shown.join(" | "));
    }
    if counts_instructions {
        println!();
        for (size, depth) in [(64, 1), (64, 16), (16 * 1024, 1)] {
            let command = serve("framewire");
            println!(
                "framewire, {size} B, {depth} in flight: {} instructions",
                instructions(&command, size, depth)?
            );
        }
    }
    Ok(())
}

/// The servers, and how they are started. Go is left out where it is not installed, or its module cannot be had.
fn contestants_here() -> Vec<(&'static str, Vec<String>)> {
    let mut names =
        vec![("framewire", serve("framewire")), ("tokio-tungstenite", serve("tokio-tungstenite"))];
    match build_go() {
        Ok(program) => names.push(("gorilla", vec![program.display().to_string()])),
        Err(error) => eprintln!("without Go: {error}"),
    }
    names
}

/// How a server that is part of this program is started.
fn serve(name: &str) -> Vec<String> {
    vec![env::current_exe().unwrap_or_default().display().to_string(), "serve".into(), name.into()]
}

/// Builds it with the module, or with Debian's package `golang-github-gorilla-websocket-dev` where that cannot be had.
fn build_go() -> Outcome<PathBuf> {
    let directory = env::temp_dir().join("framewire-websocket-bench");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("main.go"), include_str!("go/main.go"))?;
    fs::write(directory.join("go.mod"), include_str!("go/go.mod"))?;
    let program = directory.join("echo");
    let mut said = String::new();
    let debian = [("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")];
    for (arg, env) in [("-mod=mod", &[][..]), ("-v", &debian)] {
        let built = Command::new("go")
            .args(["build", arg, "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(&directory)
            .env("CGO_ENABLED", "0")
            .envs(env.iter().copied())
            .output()?;
        if built.status.success() {
            return Ok(program);
        }
        said.push_str(&String::from_utf8_lossy(&built.stderr));
    }
    Err(said.into())
}

/// A server that runs. It ends when its standard input does.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    port: u16,
}

impl Running {
    fn start(command: &[String]) -> Outcome<Self> {
        let (program, args) = command.split_first().ok_or("no program")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("piped")?).read_line(&mut line)?;
        let port = line.trim().strip_prefix("port ").ok_or("it says no port")?.parse()?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, port })
    }

    /// CPU time of all threads so far.
    fn cpu(&self) -> Outcome<Duration> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            sum += stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(Duration::from_nanos(sum))
    }

    fn end(mut self) -> Outcome<()> {
        drop(self.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections that have asked for their WebSockets.
struct Load {
    connections: Vec<TcpStream>,
    /// What is written to each at a time, and what comes back.
    request: Vec<u8>,
    reply: Vec<u8>,
    read: Vec<u8>,
    depth: usize,
}

impl Load {
    fn open(port: u16, size: usize, depth: usize) -> Outcome<Self> {
        let payload: Vec<u8> = (0..size).map(|at| (at * 167 % 251) as u8).collect();
        let masked: Vec<u8> =
            payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let request = [head(size, 0x80), MASK.to_vec(), masked].concat().repeat(depth);
        let reply = [head(size, 0), payload].concat().repeat(depth);
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            // All that is in flight has room, so that neither side waits for the other to read.
            socket2::SockRef::from(&stream).set_send_buffer_size(1 << 20)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(REQUEST.as_bytes())?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                answer.extend(byte);
            }
            if !answer.starts_with(b"HTTP/1.1 101 ") {
                return Err(String::from_utf8_lossy(&answer).into());
            }
            connections.push(stream);
        }
        let read = vec![0; reply.len()];
        Ok(Self { connections, request, reply, read, depth })
    }

    /// Sends to all, and receives from all. Returns the number of messages.
    fn round(&mut self) -> Outcome<usize> {
        for connection in &mut self.connections {
            connection.write_all(&self.request)?;
        }
        for connection in &mut self.connections {
            connection.read_exact(&mut self.read)?;
            if self.read != self.reply {
                return Err("a reply is not what was sent".into());
            }
        }
        Ok(self.connections.len() * self.depth)
    }
}

/// The head of a binary frame; `masked` is the bit for a mask.
fn head(size: usize, masked: u8) -> Vec<u8> {
    match (u8::try_from(size), u16::try_from(size)) {
        (Ok(short), _) if short < 126 => vec![0x82, masked | short],
        (_, Ok(len)) => [&[0x82, masked | 126][..], &len.to_be_bytes()].concat(),
        _ => [&[0x82, masked | 127][..], &(size as u64).to_be_bytes()].concat(),
    }
}

/// Microseconds.
fn cpu_per_message(command: &[String], size: usize, depth: usize) -> Outcome<f64> {
    let server = Running::start(command)?;
    let mut load = Load::open(server.port, size, depth)?;
    for _ in 0..20 {
        load.round()?;
    }
    let (before, begin, mut messages) = (server.cpu()?, Instant::now(), 0);
    while begin.elapsed() < WINDOW {
        messages += load.round()?;
    }
    let spent = server.cpu()? - before;
    drop(load);
    server.end()?;
    Ok(spent.as_secs_f64() * 1e6 / messages as f64)
}

fn median(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (figures.first(), figures.last()) else { return "—".to_owned() };
    let middle = figures.get(figures.len() / 2).unwrap_or(least);
    format!("{middle:.2} ({least:.2} to {most:.2})")
}

/// Instructions in user space per message: the difference of a long run and a short one.
fn instructions(command: &[String], size: usize, depth: usize) -> Outcome<String> {
    let mut totals = Vec::new();
    for rounds in [10, 110] {
        let out = env::temp_dir().join(format!("framewire-websocket-{}-{rounds}.out", std::process::id()));
        let file = format!("--callgrind-out-file={}", out.display());
        let valgrind = ["valgrind".to_owned(), "--tool=callgrind".into(), file];
        let server = Running::start(&[&valgrind[..], command].concat())?;
        let mut load = Load::open(server.port, size, depth)?;
        for _ in 0..rounds {
            load.round()?;
        }
        drop(load);
        server.end()?;
        totals.push(total(&out)?);
        fs::remove_file(&out)?;
    }
    let [few, many] = totals[..] else { return Err("two runs".into()) };
    Ok(format!("{}", (many - few) / (100 * CONNECTIONS * depth) as u64))
}

fn total(out: &Path) -> Outcome<u64> {
    let text = fs::read_to_string(out)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    Ok(line.ok_or("callgrind says no total")?.trim().parse()?)
}

//! TLS with other implementations of it: OpenSSL and curl, where they are installed.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
};

use framewire::{Dial, Event, Raw, Separator, Server, Session, TlsError, packet_fn, session_fn};

use crate::common::{
    PATIENCE, Served, echo,
    tls::{SERVER, common},
    until,
};

/// Returns `true` if a program can be started; a test without it says that it was skipped.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn has(program: &str, version: &str) -> bool {
    let found = Command::new(program).arg(version).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// The certificate and the key of the server in files, which are removed with this.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("framewire-peers-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for files");
        let files = Self(dir);
        fs::write(files.path("cert.pem"), &common().made.certificate).expect("a file");
        fs::write(files.path("key.pem"), &common().made.key).expect("a file");
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left is in the directory for such files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ends a program that is still running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of lines with TLS.
fn lines() -> (Served, SocketAddr) {
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let served = Served::start(server.tls(&common().acceptor), echo());
    let addr = served.running.local_addr().expect("TCP");
    (served, addr)
}

fn s_client(addr: SocketAddr, files: &Files, arguments: &[&str]) -> Running {
    let child = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-servername", SERVER, "-CAfile"])
        .args([&files.path("cert.pem"), "-connect", &addr.to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Running(child.expect("it is installed"))
}

#[test]
fn openssl_is_served_in_both_versions_and_in_no_older_one() {
    if !has("openssl", "version") {
        return;
    }
    let files = Files::new("s_client");
    let (served, addr) = lines();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = s_client(addr, &files, &[version]);
        let mut input = client.0.stdin.take().expect("it is piped");
        input.write_all(b"hello from openssl\n").expect("it reads");
        let mut reply = String::new();
        let output = client.0.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut reply).expect("it replies");
        assert_eq!(reply, "hello from openssl\n", "{version}");
    }
    until("both were served", || served.metrics().opened == 2);
    let events = served.running.events(10);
    for version in ["-tls1", "-tls1_1"] {
        // At the level of its defaults it refuses these itself.
        let mut client = s_client(addr, &files, &[version, "-cipher", "DEFAULT:@SECLEVEL=0"]);
        let mut output = Vec::new();
        client.0.stdout.take().expect("it is piped").read_to_end(&mut output).expect("it ends");
        assert_eq!(output, b"", "{version}");
        let Ok(Event::Refused { reason: Some(reason), .. }) = refused(&events) else {
            panic!("{version} was not refused");
        };
        assert!(matches!(TlsError::of(&reason), Some(TlsError::Protocol(_))), "{version}: {reason}");
    }
    assert_eq!(served.metrics().opened, 2);
    until("they are gone", || served.running.session_count() == 0);
    served.finish();
}

/// The next refusal, among the ends of sessions.
fn refused(events: &framewire::Events) -> Result<Event, std::sync::mpsc::RecvTimeoutError> {
    loop {
        match events.recv_timeout(PATIENCE)? {
            Event::Closed { .. } => {}
            event => return Ok(event),
        }
    }
}

#[test]
fn openssl_resumes_its_session() {
    if !has("openssl", "version") {
        return;
    }
    let files = Files::new("resume");
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Separator::lines());
    let (tell, told) = channel();
    let handler = packet_fn(move |session: &mut Session<'_>, packet: &[u8]| {
        tell.send(session.tls().is_some_and(|tls| tls.is_resumed()))?;
        Ok(session.send(packet)?)
    });
    let served = Served::start(server.tls(&common().acceptor), handler);
    let addr = served.running.local_addr().expect("TCP");
    let ticket = files.path("ticket");
    for (option, resumed) in [("-sess_out", false), ("-sess_in", true)] {
        let mut client = s_client(addr, &files, &["-no_ign_eof", "-tls1_2", option, &ticket]);
        let mut input = client.0.stdin.take().expect("it is piped");
        input.write_all(b"hello\n").expect("it reads");
        let mut reply = String::new();
        let output = client.0.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut reply).expect("it replies");
        assert_eq!(told.recv_timeout(PATIENCE), Ok(resumed), "{option}");
        // It has the ticket when it has the reply, and leaves at the end of its input.
        drop(input);
        until("the session is over", || served.running.session_count() == 0);
    }
    served.finish();
}

#[test]
fn openssl_is_dialled() {
    if !has("openssl", "version") {
        return;
    }
    let files = Files::new("s_server");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.expect("a free port").port();
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-rev",
            "-cert",
            &files.path("cert.pem"),
            "-key",
            &files.path("key.pem"),
        ])
        .args(["-accept", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Running(server.expect("it is installed"));
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    until("it listens", || std::net::TcpStream::connect(addr).is_ok());
    let (tell, told) = channel();
    let client = session_fn(
        |session: &mut Session<'_>| Ok(session.send("olleh")?),
        move |_, (), reply: &[u8]| Ok(tell.send(reply.to_vec())?),
    );
    let dialler = Server::unbound().framing(Separator::lines()).spawn(client).expect("it starts");
    let _upstream = dialler.connect(Dial::to(addr).tls(&common().connector, SERVER)).expect("it runs");
    assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok(&b"hello"[..]));
    dialler.stop(PATIENCE).expect("it stops");
}

#[test]
fn curl_is_served_by_a_handler_that_speaks_http() {
    if !has("curl", "--version") {
        return;
    }
    let files = Files::new("curl");
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(Raw::new());
    let handler = packet_fn(|session: &mut Session<'_>, packet: &[u8]| {
        if packet.ends_with(b"\r\n\r\n") {
            session.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")?;
            session.close();
        }
        Ok(())
    });
    let served = Served::start(server.tls(&common().acceptor), handler);
    let port = served.running.local_addr().expect("TCP").port();
    let got = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--cacert"])
        .args([&files.path("cert.pem"), "--resolve", &format!("{SERVER}:{port}:127.0.0.1")])
        .arg(format!("https://{SERVER}:{port}/"))
        .output()
        .expect("it is installed");
    assert_eq!(String::from_utf8_lossy(&got.stdout), "hello", "{}", String::from_utf8_lossy(&got.stderr));
    served.finish();
}

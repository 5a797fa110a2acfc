use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use framewire::{Separator, TlsConnector, TlsIdentity, TlsRoots, blocking::Client};

use super::program::Program;

/// A certificate and its key in files, which are removed with this.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("framewire-examples-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for files");
        let files = Self(dir);
        files.renew();
        files
    }

    /// Puts a new certificate and a new key in the place of the old ones.
    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it can be made");
        fs::write(self.path("cert.pem"), made.cert.pem()).expect("a file");
        fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn roots(&self) -> TlsRoots {
        TlsRoots::from_pem_file(Path::new(&self.path("cert.pem"))).expect("it was made for this")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left is in the directory for such files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ask(client: &mut Client<Separator>, line: &str, replies: &[&str]) {
    if !line.is_empty() {
        client.send(line).expect("it reads");
    }
    for reply in replies {
        let got = client.recv().expect("it replies").expect("it stays");
        assert_eq!(String::from_utf8_lossy(got), *reply);
    }
}

fn connect(program: &Program) -> Client<Separator> {
    Client::connect(program.addr, Separator::lines()).expect("it listens")
}

#[test]
fn tls_echo_shows_new_certificates_and_keeps_old_sessions() {
    let files = Files::new("tls_echo");
    let args = [files.path("cert.pem"), files.path("key.pem")];
    let mut program = Program::start("tls_echo", &[&args[0], &args[1], "127.0.0.1:0"]);
    let old = TlsConnector::new(files.roots()).expect("it can be used");
    let mut before = connect(&program).tls(&old, "localhost").expect("it is that server");
    ask(&mut before, "hello", &["hello"]);
    program.line_with(" speaks Tls13 with TLS13_");

    fs::write(files.path("cert.pem"), "").expect("a file");
    hang_up(&program);
    assert!(program.line_with("not reloaded: ").contains("there is no certificate in it; it is empty"));
    ask(&mut connect(&program).tls(&old, "localhost").expect("the old one stays"), "still", &["still"]);

    files.renew();
    hang_up(&program);
    program.line_with("reloaded");
    let new = TlsConnector::new(files.roots()).expect("it can be used");
    ask(&mut connect(&program).tls(&new, "localhost").expect("the new one is shown"), "new", &["new"]);
    assert!(connect(&program).tls(&old, "localhost").is_err(), "the old one is shown no more");
    ask(&mut before, "lives on", &["lives on"]);
    before.close().expect("both say goodbye");
}

fn hang_up(program: &Program) {
    let pid = program.id().to_string();
    let told = Command::new("kill").args(["-HUP", &pid]).status().expect("kill is there");
    assert!(told.success(), "cannot signal {pid}");
}

#[test]
fn mutual_tls_serves_those_who_show_a_certificate() {
    let (server, ours, other) = (Files::new("mutual"), Files::new("ours"), Files::new("other"));
    let args = [server.path("cert.pem"), server.path("key.pem"), ours.path("cert.pem")];
    let program = Program::start("mutual_tls", &[&args[0], &args[1], &args[2], "127.0.0.1:0"]);
    let identity = |files: &Files| TlsIdentity::from_pem_files(files.path("cert.pem"), files.path("key.pem"));
    let builder = || TlsConnector::builder(server.roots());
    let known = builder().identity(identity(&ours).expect("usable")).build().expect("usable");
    let mut client = connect(&program).tls(&known, "localhost").expect("it is that server");
    let greeting = client.recv().expect("it greets").map(<[u8]>::to_vec).expect("it stays");
    assert!(greeting.starts_with(b"welcome, with 1 certificate(s) of ["), "{}", greeting.escape_ascii());
    ask(&mut client, "hello", &["hello"]);
    client.close().expect("both say goodbye");
    let stranger = builder().identity(identity(&other).expect("usable")).build().expect("usable");
    for refused in [stranger, builder().build().expect("usable")] {
        // In TLS 1.3 a client is through before the server has seen its certificate.
        let outcome = connect(&program).tls(&refused, "localhost");
        let outcome = outcome.and_then(|mut client| client.recv().map(|_| ()));
        assert!(outcome.is_err());
    }
}

#[test]
fn starttls_lets_nobody_in_without_it() {
    let files = Files::new("starttls");
    let args = [files.path("cert.pem"), files.path("key.pem")];
    let program = Program::start("starttls", &[&args[0], &args[1], "127.0.0.1:0"]);
    let mut client = connect(&program);
    ask(&mut client, "", &["220 ready"]);
    ask(&mut client, "LOGIN ann", &["530 STARTTLS first"]);
    ask(&mut client, "EHLO me", &["250-hello", "250 STARTTLS"]);
    ask(&mut client, "STARTTLS", &["220 go ahead"]);
    let connector = TlsConnector::new(files.roots()).expect("it can be used");
    let mut client = client.tls(&connector, "localhost").expect("it agrees");
    ask(&mut client, "LOGIN ann", &["235 welcome"]);
    ask(&mut client, "STARTTLS", &["503 there is TLS already"]);
    ask(&mut client, "QUIT", &["221 bye"]);
    client.close().expect("both say goodbye");
}

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{
    program::{Program, until},
    websocket::{BINARY, CLOSE, TEXT, WebSocketPeer, request},
};

fn text(line: &str) -> (u8, Vec<u8>) {
    (TEXT, line.as_bytes().to_vec())
}

#[test]
fn web_chat_is_one_room_for_browsers_and_terminals() {
    let program = Program::start("web_chat", &["127.0.0.1:0"]);
    let mut terminal = program.connect();
    terminal.send("\n");
    terminal.expect("* your name?\n* 1 to 20 bytes, please\n");
    terminal.send("ann\n");
    terminal.expect("* welcome, ann\n");
    let mut browser = WebSocketPeer::open(&program.addr.into(), "/chat");
    assert_eq!(browser.recv(), text("* your name?"));
    browser.send(TEXT, "bob");
    assert_eq!(browser.recv(), text("* welcome, bob"));
    terminal.expect("* bob joins\n");
    browser.send(TEXT, "two\nlines");
    terminal.expect("bob: two lines\n");
    assert_eq!(browser.recv(), text("bob: two lines"));
    terminal.send("héllo\n");
    terminal.expect("ann: héllo\n");
    assert_eq!(browser.recv(), text("ann: héllo"));
    browser.send(TEXT, "/quit");
    assert_eq!(browser.recv_close(), (4000, "goodbye".to_owned()));
    browser.send(CLOSE, 4000_u16.to_be_bytes());
    browser.assert_end();
    terminal.expect("* bob leaves\n");
}

#[test]
fn web_chat_serves_its_page_and_lets_no_other_page_in() {
    let program = Program::start("web_chat", &["127.0.0.1:0"]);
    let addr = program.addr.into();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (request, status) in [
        (get("/"), "200 OK"),
        (get("/favicon.ico"), "404 Not Found"),
        (request("/chat", "Origin: http://evil.example\r\n"), "403 Forbidden"),
        (request("/other", ""), "404 Not Found"),
        (request("/chat", "Origin: http://localhost\r\n"), "101 Switching Protocols"),
    ] {
        let mut peer = WebSocketPeer::ask(&addr, &request);
        assert!(peer.response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{}", peer.response);
        if status.starts_with("200") {
            let page = String::from_utf8(peer.rest()).expect("a page is text");
            assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        }
    }
    let mut binary = WebSocketPeer::open(&addr, "/chat");
    assert_eq!(binary.recv(), text("* your name?"));
    binary.send(BINARY, [0xff]);
    assert_eq!(binary.recv_close().0, 1008, "a name is text");
}

/// A browser without a window, steered by its debugging protocol.
struct Browser {
    child: Child,
    profile: PathBuf,
    page: WebSocketPeer,
    asked: u32,
}

impl Browser {
    /// `None` if there is none on this machine.
    fn open(url: &str) -> Option<Self> {
        let path = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
            .into_iter()
            .find(|path| Path::new(path).exists())?;
        let profile = std::env::temp_dir().join(format!("framewire-browser-{}", std::process::id()));
        let child = Command::new(path)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--window-size=900,700", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("what is there can be started");
        let mut port = None;
        until("the browser says where it can be steered", || {
            let said = fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
            port = said.lines().next().and_then(|port| port.parse::<u16>().ok());
            port.is_some()
        });
        let addr = ([127, 0, 0, 1], port.expect("it has said so")).into();
        let addr: std::net::SocketAddr = addr;
        let mut target = None;
        until("it has opened the page", || {
            let mut pages = WebSocketPeer::ask(
                &addr.into(),
                "GET /json/list HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            );
            let length = pages.response.lines().find_map(|line| line.strip_prefix("Content-Length:"));
            let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or_default();
            let listed = String::from_utf8(pages.read(length)).expect("JSON");
            let at = listed.find("\"/devtools/page/").or_else(|| listed.find("/devtools/page/"));
            target = at
                .and_then(|at| listed[at..].split('"').find(|part| part.starts_with('/')))
                .map(str::to_owned);
            target.is_some()
        });
        let page = WebSocketPeer::open(&addr.into(), &target.expect("it has one"));
        Some(Self { child, profile, page, asked: 0 })
    }

    /// Calls a method of the debugging protocol; the text of the answer.
    fn call(&mut self, method: &str, params: &str) -> String {
        self.asked += 1;
        let id = self.asked;
        self.page.send(TEXT, format!("{{\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}"));
        loop {
            let (first, payload) = self.page.recv();
            assert_eq!(first, TEXT);
            let said = String::from_utf8(payload).expect("text");
            if said.starts_with(&format!("{{\"id\":{id},")) {
                return said;
            }
        }
    }

    fn evaluate(&mut self, script: &str) -> String {
        assert!(!script.contains('"'), "it is quoted by them");
        self.call("Runtime.evaluate", &format!("{{\"expression\":\"{script}\"}}"))
    }

    /// Types into the page's field, and sends.
    fn say(&mut self, line: &str) {
        self.evaluate(&format!("say.value = '{line}'; form.requestSubmit()"));
    }

    fn until_shown(&mut self, text: &str) {
        until(&format!("the page shows {text}"), || {
            self.evaluate("document.querySelector('main').innerText").contains(text)
        });
    }

    /// Keeps a picture of the page, if the environment says where.
    fn picture(&mut self, name: &str, scheme: &str) {
        let Ok(directory) = std::env::var("FRAMEWIRE_PICTURES") else { return };
        let features =
            format!("{{\"features\":[{{\"name\":\"prefers-color-scheme\",\"value\":\"{scheme}\"}}]}}");
        self.call("Emulation.setEmulatedMedia", &features);
        let said = self.call("Page.captureScreenshot", "{}");
        let data =
            said.split("\"data\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a picture");
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(fs::File::create(Path::new(&directory).join(name)).expect("the directory is there"))
            .spawn()
            .expect("base64 is there");
        decode.stdin.take().expect("piped").write_all(data.as_bytes()).expect("it reads");
        assert!(decode.wait().expect("it ends").success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails when it has ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that could not be made says so")]
fn web_chat_works_in_a_browser() {
    let program = Program::start("web_chat", &["127.0.0.1:0"]);
    let Some(mut browser) = Browser::open(&format!("http://{}/", program.addr)) else {
        return eprintln!("SKIPPED: there is no Chromium at /usr/bin");
    };
    browser.until_shown("your name?");
    browser.say("Ann");
    browser.until_shown("welcome, Ann");
    let mut terminal = program.connect();
    terminal.send("Bob\n");
    terminal.expect("* your name?\n* welcome, Bob\n");
    browser.until_shown("Bob joins");
    browser.say("Hello from a browser: <b>not bold</b>, é and 😀");
    terminal.expect("Ann: Hello from a browser: <b>not bold</b>, é and 😀\n");
    terminal.send("And hello from a terminal.\n");
    terminal.expect("Bob: And hello from a terminal.\n");
    browser.until_shown("And hello from a terminal.");
    browser.until_shown("<b>not bold</b>");
    browser.picture("light.png", "light");
    browser.picture("dark.png", "dark");
    browser.say("/quit");
    browser.until_shown("goodbye");
    terminal.expect("* Ann leaves\n");
}

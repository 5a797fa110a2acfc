//! WebSockets with others on the other side: Python's `websockets`, Node's own client, and its `ws`. A test whose
//! counterpart is not on this machine says so.
#![allow(clippy::print_stderr, reason = "a test that could not be made says so")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use framewire::{
    Dial, Handled, LengthPrefix, PacketHandler, Server, Session, SessionInfo, ShardContext, SingleReactor,
    websocket::{CloseFrame, MessageKind, Messages, WebSocket, WebSocketClient},
};

use crate::common::{On, PATIENCE, Served, on_each_strategy_without_layers, until};

on_each_strategy_without_layers! {
    python_talks_to_a_server
    node_talks_to_a_server
    the_ws_of_node_talks_to_a_server
}

/// A script that runs as a process. What it says is read line by line.
struct Script {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Script {
    /// `None` if the `probe` fails: the program, or what it needs, is not here.
    fn start(program: &str, probe: &[&str], args: &[&str], script: &str) -> Option<Self> {
        let probed = Command::new(program).args(probe).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !probed.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: {program} is not here, or {probe:?} fails");
            return None;
        }
        let mut child = Command::new(program)
            .args(args)
            .arg(script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("what is there can be started");
        let (lines, said) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            // Until it ends, or the test does.
            stdout
                .lines()
                .map_while(Result::ok)
                .take_while(|line| lines.send(line.clone()).is_ok())
                .for_each(drop);
        });
        Some(Self { child, said })
    }

    fn line(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("it says something")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Fails when it has ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Echoes messages as what they came, and tells how sessions end.
#[derive(Clone)]
struct Mirror(mpsc::Sender<String>);

impl PacketHandler for Mirror {
    type State = ();

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        let kind = session.message_kind().unwrap_or_default();
        match packet {
            b"close me" => Err(CloseFrame::new(4001, "as you like").into()),
            packet => Ok(session.send_message(kind, packet)?),
        }
    }

    fn on_close(&mut self, session: &SessionInfo, (): (), reason: &framewire::CloseReason) {
        let frame = session.peer_close.as_ref().map(|frame| (frame.code(), frame.reason().to_owned()));
        // The test may have ended.
        let _ = self.0.send(format!("{:?} {frame:?}", reason.kind()));
    }
}

/// Serves a script, which says `ok` after each of two conversations: one that it closes, and one that is closed.
fn serve(on: On, program: &str, probe: &[&str], args: &[&str], script: &str) {
    let (sender, ends) = mpsc::channel();
    let websocket = WebSocket::new().protocols(["p"]);
    // All of them offer to compress.
    #[cfg(feature = "deflate")]
    let websocket = websocket.deflate(framewire::Deflate::new());
    let served = Served::start(on.bind().framing(Messages::new()).websocket(websocket), Mirror(sender));
    let url = format!("ws://127.0.0.1:{}/", served.addr().as_socket().expect("TCP").port());
    let extensions = if cfg!(feature = "deflate") { "1" } else { "0" };
    let script = script.replace("URL", &url).replace("EXTENSIONS", extensions);
    if let Some(script) = Script::start(program, probe, args, &script) {
        assert_eq!([script.line(), script.line()], ["ok", "ok"]);
        // A client may be told of the end before it has left, and begin the other conversation.
        let mut told = [(); 2].map(|()| ends.recv_timeout(PATIENCE).expect("it has ended"));
        told.sort_unstable();
        assert_eq!(told, ["Handler None", "PeerClosed Some((4999, \"bye\"))"]);
    }
    served.finish();
}

const PYTHON: &str = r#"
import asyncio, websockets
from websockets.exceptions import ConnectionClosed

async def main():
    async with websockets.connect("URL", subprotocols=["p"], max_size=None) as ws:
        assert ws.subprotocol == "p"
        assert len(ws.protocol.extensions) == EXTENSIONS
        for message in ["héllo", "", b"", b"\xff" * 126, "x" * 70000, bytes(range(256)) * 1000]:
            await ws.send(message)
            assert await ws.recv() == message
        await ws.send(["frag", "ments ", "of é"])
        assert await ws.recv() == "fragments of é"
        await asyncio.wait_for(await ws.ping(b"ping"), 30)
        await asyncio.gather(*(ws.send("n%d" % n) for n in range(1000)))
        assert sorted([await ws.recv() for _ in range(1000)]) == sorted("n%d" % n for n in range(1000))
        await ws.close(4999, "bye")
        assert ws.close_code == 4999, ws.close_code
    print("ok", flush=True)
    async with websockets.connect("URL") as ws:
        await ws.send("close me")
        try:
            await ws.recv()
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you like"), closed
            print("ok", flush=True)

asyncio.run(main())
"#;

fn python_talks_to_a_server(on: On) {
    serve(on, "python3", &["-c", "import websockets"], &["-c"], PYTHON);
}

/// For both clients of Node, which have the interface of browsers.
const NODE: &str = r#"
function equal(a, b) { if (a !== b) { console.log(`${a} is not ${b}`); process.exit(1); } }
const ws = new WebSocket("URL", ["p"]);
ws.binaryType = "arraybuffer";
const sent = ["héllo", "", "x".repeat(70000), new Uint8Array([255, 0, 254]).buffer, new ArrayBuffer(200000)];
let at = 0;
ws.onopen = () => { equal(ws.protocol, "p"); equal(ws.extensions !== "", EXTENSIONS === 1); sent.forEach(message => ws.send(message)); };
ws.onmessage = event => {
  const message = sent[at++];
  if (typeof message === "string") equal(event.data, message);
  else equal(Buffer.from(event.data).toString("hex"), Buffer.from(message).toString("hex"));
  if (at === sent.length) ws.close(4999, "bye");
};
ws.onclose = event => {
  equal(at, sent.length);
  equal(event.code, 4999);
  console.log("ok");
  const again = new WebSocket("URL");
  again.onopen = () => again.send("close me");
  again.onclose = event => { equal(event.code, 4001); equal(event.reason, "as you like"); console.log("ok"); };
};
"#;

fn node_talks_to_a_server(on: On) {
    let flag = "--experimental-websocket";
    let probe = ["--no-warnings", flag, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"];
    serve(on, "node", &probe, &["--no-warnings", flag, "-e"], NODE);
}

fn the_ws_of_node_talks_to_a_server(on: On) {
    let script = format!("const {{ WebSocket }} = require('ws'); {NODE}");
    serve(on, "node", &["-e", "require('ws')"], &["-e"], &script);
}

/// Dials when it starts; tells what comes, and how it ends.
#[derive(Clone)]
struct Dialling {
    dial: Dial,
    tell: mpsc::Sender<String>,
}

impl PacketHandler for Dialling {
    type State = ();

    fn on_start(&mut self, shard: &mut ShardContext<'_, ()>) {
        shard.connect(self.dial.clone()).expect("a thread may dial");
    }

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled {
        session.send_message(MessageKind::Text, "héllo")?;
        Ok(session.send([7; 100_000])?)
    }

    fn on_packet(&mut self, session: &mut Session<'_>, (): &mut (), packet: &[u8]) -> Handled {
        self.tell.send(format!("{:?} {}", session.message_kind(), packet.len()))?;
        if packet.len() == 100_000 {
            session.close_with(CloseFrame::new(4005, "done"));
        }
        Ok(())
    }
}

#[test]
fn a_dial_talks_to_python() {
    const SERVER: &str = r#"
import asyncio, websockets

async def echo(ws):
    await asyncio.wait_for(await ws.ping(b"ping"), 30)
    assert len(ws.protocol.extensions) == EXTENSIONS
    try:
        async for message in ws:
            await ws.send(message)
    except websockets.exceptions.ConnectionClosedError:
        pass # as for any code but 1000 and 1001
    print(ws.close_code, ws.close_reason, flush=True)

async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.sleep(300)

asyncio.run(main())
"#;
    let server = SERVER.replace("EXTENSIONS", if cfg!(feature = "deflate") { "1" } else { "0" });
    let Some(script) = Script::start("python3", &["-c", "import websockets"], &["-c"], &server) else {
        return;
    };
    let port: u16 = script.line().parse().expect("a port");
    let client = WebSocketClient::new(&format!("127.0.0.1:{port}"), "/").expect("it is fine");
    #[cfg(feature = "deflate")]
    let client = client.deflate(framewire::Deflate::new());
    let (tell, told) = mpsc::channel();
    let dial = Dial::to(("127.0.0.1", port)).websocket(client);
    let server = Server::unbound().framing(LengthPrefix::u32_be());
    // One handler dials, and one session comes of it.
    let running = server.strategy(SingleReactor::new()).spawn(Dialling { dial, tell }).expect("it starts");
    for said in ["Some(Text) 6", "Some(Binary) 100000"] {
        assert_eq!(told.recv_timeout(PATIENCE).expect("it comes back"), said);
    }
    assert_eq!(script.line(), "4005 done");
    until("the session has ended", || running.session_count() == 0);
    running.stop(Duration::from_secs(5)).expect("it stops");
}

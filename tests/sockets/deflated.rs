//! Compression between this library and another one: the zlib of Python.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use framewire::{CloseKind, Deflate, DeflateWindow, LengthPrefix, Limits, Server, packet_fn};

use crate::common::{Client, On, PATIENCE, Served, echo, on_each_strategy_without_layers, until};

on_each_strategy_without_layers! {
    the_zlib_of_python_is_understood_and_understands
    a_bomb_ends_its_session_and_no_other
}

/// Reads from its standard input where the server is, how it compresses, and packets in hex, a batch in each line; writes what comes
/// back, in hex, and at the end if the server's stream was whole.
const CLIENT: &str = r#"
import socket, sys, zlib
port, per_batch = int(sys.argv[1]), sys.argv[2] == "PerBatch"
sock = socket.create_connection(("127.0.0.1", port), 60)
squeeze, inflate, plain = zlib.compressobj(9, wbits=-15), zlib.decompressobj(wbits=-15), b""
def read():
    global inflate, plain
    wire = sock.recv(4096)
    assert wire, "the server has ended"
    while wire:
        plain += inflate.decompress(wire)
        wire = inflate.unused_data if inflate.eof else b""
        if inflate.eof and per_batch:
            inflate = zlib.decompressobj(wbits=-15)
for line in sys.stdin:
    batch = bytes.fromhex(line)
    sock.sendall(squeeze.compress(batch) + squeeze.flush(zlib.Z_FINISH if per_batch else zlib.Z_SYNC_FLUSH))
    if per_batch:
        squeeze = zlib.compressobj(9, wbits=-15)
    while len(plain) < len(batch):
        read()
    print(plain.hex(), flush=True)
    plain = b""
if not per_batch:
    sock.sendall(squeeze.flush(zlib.Z_FINISH))
sock.shutdown(socket.SHUT_WR)
rest = b""
while True:
    wire = sock.recv(4096)
    if not wire:
        break
    rest += wire
inflate.decompress(rest)
print("whole" if per_batch or inflate.eof else "cut", flush=True)
"#;

/// A client in Python, killed when this is dropped.
struct Python {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Python {
    /// `None` if there is no Python, which is said.
    fn connect(served: &Served, window: DeflateWindow) -> Option<Self> {
        let port = served.addr().as_socket().expect("it is TCP").port().to_string();
        let mut command = Command::new("python3");
        command
            .args(["-c", CLIENT, &port, &format!("{window:?}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = writeln!(io::stderr(), "SKIPPED: python3 is not installed (package python3)");
                return None;
            }
            Err(error) => panic!("python3: {error}"),
        };
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Self { child, lines })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it writes");
        line.trim_end().to_owned()
    }

    fn send(&mut self, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let into = self.child.stdin.as_mut().expect("it is piped");
        writeln!(into, "{hex}").and_then(|()| into.flush()).expect("it reads");
    }

    /// Sends a batch, which comes back.
    fn assert_echo(&mut self, batch: &[u8]) {
        self.send(batch);
        let hex: String = batch.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.line(), hex);
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert_eq!(self.line(), "whole");
        assert!(self.child.wait().expect("it is ours").success());
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(on: On, deflate: Deflate, limits: Limits) -> Served {
    Served::start(on.bind().framing(LengthPrefix::u32_be()).limits(limits).deflate(deflate), echo())
}

fn the_zlib_of_python_is_understood_and_understands(on: On) {
    for window in [DeflateWindow::Kept, DeflateWindow::PerBatch] {
        let served = serve(on, Deflate::new().window(window), Limits::default());
        let Some(mut python) = Python::connect(&served, window) else { return };
        let long: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(at) / 7) as u8).collect();
        for packets in [&[&b"hello"[..]][..], &[b"", b"two", b"three"], &[&long, b"and a short one"]] {
            let batch: Vec<u8> = packets.iter().flat_map(|packet| crate::common::frame(packet)).collect();
            python.assert_echo(&batch);
        }
        python.finish();
        until("the end is noticed", || served.journal.ended_by(CloseKind::PeerClosed) == 1);
        served.finish();
    }
}

fn a_bomb_ends_its_session_and_no_other(on: On) {
    let deflate = Deflate::new().window(DeflateWindow::PerBatch).allowance(1 << 20);
    let served = serve(on, deflate.clone(), Limits::default());
    // One frame that announces 1 GB of zeros, and comes for a thousandth of that.
    let mut bomb = framewire::testing::LayerDriver::new(deflate.clone().level(9).layer())
        .expect("there is no handshake");
    bomb.send(&[&1_000_000_000_u32.to_be_bytes()[..], &vec![0; 8 << 20]].concat()).expect("it can be sent");
    let bomb = bomb.take_wire();
    assert!(bomb.len() < 10_000, "{}", bomb.len());
    let small_frames = {
        let mut driver =
            framewire::testing::LayerDriver::new(deflate.layer()).expect("there is no handshake");
        driver.send(&[0; 8 << 20]).expect("it can be sent");
        driver.take_wire()
    };
    for (wire, kind) in [(bomb, CloseKind::Frame), (small_frames, CloseKind::Layer)] {
        let mut client = served.connect();
        client.try_write(&wire);
        until("it is ended", || served.journal.ended_by(kind) == 1);
        drop(client);
    }
    let buffered = served.metrics().buffered;
    assert!(buffered < 4 << 20, "{buffered} bytes are held");
    served.finish();
}

#[test]
fn both_ends_of_this_library_agree_over_a_socket_where_batches_are_long() {
    let deflate = Deflate::new().window(DeflateWindow::PerBatch);
    let many = packet_fn(|session, packet| (0..100).try_for_each(|_| Ok(session.send(packet)?)));
    let server = Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be());
    let served = Served::start(server.deflate(deflate.clone()), many);
    let mut driver = framewire::testing::LayerDriver::new(deflate.layer()).expect("there is no handshake");
    let mut client: Client = served.connect();
    driver.send(&crate::common::frame(&[7; 1_000])).expect("it can be sent");
    client.write(&driver.take_wire());
    let (mut plain, mut wire) = (Vec::new(), 0);
    let deadline = std::time::Instant::now() + PATIENCE;
    while plain.len() < 100 * 1_004 && std::time::Instant::now() < deadline {
        let byte = client.read(1);
        wire += byte.len();
        plain.extend(driver.receive(&byte).expect("the server compresses"));
    }
    assert_eq!(plain, crate::common::frame(&[7; 1_000]).repeat(100));
    assert!(wire * 50 < plain.len(), "{wire} bytes stand for {}", plain.len());
    drop(client);
    served.finish();
}

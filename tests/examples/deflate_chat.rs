use framewire::{Deflate, DeflateWindow, testing::LayerDriver};

use super::program::{Peer, Program};

/// One who speaks the same compression.
struct Guest<L> {
    peer: Peer,
    layer: LayerDriver<L>,
    /// What was received and not looked at.
    plain: String,
}

fn guest(program: &Program) -> Guest<impl framewire::Layer> {
    let layer = Deflate::new().window(DeflateWindow::PerBatch).layer();
    Guest {
        peer: program.connect(),
        layer: LayerDriver::new(layer).expect("there is no handshake"),
        plain: String::new(),
    }
}

impl<L: framewire::Layer> Guest<L> {
    fn say(&mut self, line: &str) {
        self.layer.send(line.as_bytes()).expect("it can be sent");
        self.peer.send(self.layer.take_wire());
    }

    fn line(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.plain.split_once('\n') {
                let line = line.to_owned();
                self.plain = rest.to_owned();
                return line;
            }
            let plain = self.layer.receive(&self.peer.read(1)).expect("the program compresses");
            self.plain.push_str(&String::from_utf8_lossy(&plain));
        }
    }
}

#[test]
fn deflate_chat_passes_lines_on_in_compressed_batches() {
    let program = Program::start("deflate_chat", &["127.0.0.1:0"]);
    let mut one = guest(&program);
    assert_eq!(one.line(), "1 people are here");
    let mut other = guest(&program);
    assert_eq!(other.line(), "2 people are here");
    let long = "very ".repeat(1_000);
    one.say(&format!("a {long}long line\nand a short one\n"));
    let who = one.peer.addr();
    assert_eq!(other.line(), format!("{who}: a {long}long line"));
    assert_eq!(other.line(), format!("{who}: and a short one"));
}

#[test]
fn deflate_chat_joins_a_chat_and_says_what_it_is_given() {
    let program = Program::start("deflate_chat", &["127.0.0.1:0"]);
    let mut one = guest(&program);
    assert_eq!(one.line(), "1 people are here");
    let addr = program.addr.to_string();
    // Nothing is typed, so it leaves when that is said.
    let printed = super::program::printed("deflate_chat", &["join", &addr, "hello", "and goodbye"]);
    assert_eq!(printed, ["2 people are here"]);
    for due in ["hello", "and goodbye"] {
        let said = one.line();
        assert_eq!(said.split_once(": ").map(|(_, text)| text), Some(due), "{said}");
    }
}

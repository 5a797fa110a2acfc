use super::program::Program;

/// Milliseconds between beats; a side is lost after three of them.
const BEAT: &str = "500";

fn master(addr: &str) -> Program {
    Program::start("node_watch", &["master", addr, BEAT])
}

#[test]
fn node_watch_tells_when_nodes_come_and_go() {
    let mut master = master("127.0.0.1:0");
    let addr = master.addr.to_string();
    let alpha = Program::run("node_watch", &["node", "alpha", &addr, BEAT]);
    master.line_with("alpha is here: 1 nodes");
    let mut silent = master.connect();
    silent.send("NODE beta\n");
    silent.expect("WELCOME\n");
    master.line_with("beta is here: 2 nodes");
    // It says nothing more, while the other one beats.
    master.line_with("beta is lost: nothing received for 1.5s");
    silent.expect_end();
    let mut user = master.connect();
    user.send("NODES\n");
    user.expect("alpha\n");
    drop(alpha);
    master.line_with("alpha is lost: ");
}

#[test]
fn node_watch_gives_a_name_to_the_connection_that_came_last() {
    let mut master = master("127.0.0.1:0");
    let (mut old, mut new) = (master.connect(), master.connect());
    for node in [&mut old, &mut new] {
        node.send("NODE alpha\n");
        node.expect("WELCOME\n");
        master.line_with("alpha is here: 1 nodes");
    }
    old.expect_end();
    new.send("BEAT\n");
    new.expect("SEEN\n");
}

#[test]
fn node_watch_connects_again_to_a_master_that_comes_back() {
    // An address that no other test uses: the port is to be free for the second master.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let mut first = master(&format!("127.{}.{middle}.{low}:0", 64 | high & 0x3f));
    let addr = first.addr.to_string();
    let mut alpha = Program::run("node_watch", &["node", "alpha", &addr, BEAT]);
    alpha.line_with("watches alpha");
    first.line_with("alpha is here: 1 nodes");
    drop(first);
    alpha.line_with("no master: ");
    let mut second = master(&addr);
    second.line_with("alpha is here: 1 nodes");
    alpha.line_with("watches alpha");
}

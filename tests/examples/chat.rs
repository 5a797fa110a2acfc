use super::program::{Peer, Program};

fn join(program: &Program, name: &str) -> Peer {
    let mut peer = program.connect();
    peer.expect("* your name?\n");
    peer.send(format!("{name}\n"));
    peer.expect(format!("* welcome, {name}\n"));
    peer
}

#[test]
fn chat_passes_lines_on_to_everybody_else() {
    let program = Program::start("chat", &["127.0.0.1:0"]);
    let mut ann = join(&program, "ann");
    let mut bob = join(&program, "bob");
    ann.expect("* bob joins\n");
    let mut cid = join(&program, "cid");
    for peer in [&mut ann, &mut bob] {
        peer.expect("* cid joins\n");
    }
    ann.send("hello\n/who\n");
    ann.expect("* ann\n* bob\n* cid\n");
    for peer in [&mut bob, &mut cid] {
        peer.expect("ann: hello\n");
    }
    let longest = "x".repeat(500);
    bob.send(format!("{longest}\nx{longest}\n"));
    bob.expect("* too long\n");
    drop(bob);
    for peer in [&mut ann, &mut cid] {
        peer.expect(format!("bob: {longest}\n"));
        peer.expect("* bob leaves\n");
    }
    join(&program, "bob");
}

#[test]
fn chat_takes_each_name_once_and_nothing_too_long() {
    let program = Program::start("chat", &["127.0.0.1:0"]);
    let (mut ann, mut other) = (program.connect(), program.connect());
    ann.send("ann\n");
    ann.expect("* your name?\n* welcome, ann\n");
    other.send(format!("ann\n\n{}\n", "x".repeat(21)));
    other.expect("* your name?\n* that name is taken\n* say something\n* 20 bytes at most\n");
    other.send("bob\n");
    other.expect("* welcome, bob\n");
    ann.expect("* bob joins\n");
    other.send("x".repeat(600));
    other.expect_end();
    drop(other);
    ann.expect("* bob leaves\n");
    ann.send("/who\n");
    ann.expect("* ann\n");
}

#[test]
fn chat_has_rooms_that_hear_their_own_members_only() {
    let program = Program::start("chat", &["127.0.0.1:0"]);
    let (mut ann, mut bob, mut cid) = (join(&program, "ann"), join(&program, "bob"), join(&program, "cid"));
    ann.expect("* bob joins\n* cid joins\n");
    bob.expect("* cid joins\n");
    ann.send("/join garden\n");
    ann.expect("* you are in garden\n");
    for peer in [&mut bob, &mut cid] {
        peer.expect("* ann leaves\n");
    }
    bob.send("/join garden\n/who\n");
    bob.expect("* you are in garden\n* ann\n* bob\n");
    ann.expect("* bob joins\n");
    cid.expect("* bob leaves\n");
    cid.send("alone?\n/who\n");
    cid.expect("* cid\n");
    bob.send("hello\n");
    ann.expect("bob: hello\n");
    ann.send("/join\n");
    ann.expect("* 1 to 20 bytes for a room\n");
}

#[test]
fn chat_lets_the_one_who_opened_a_room_kick_and_nobody_else() {
    let program = Program::start("chat", &["127.0.0.1:0"]);
    let (mut ann, mut bob, mut cid) = (join(&program, "ann"), join(&program, "bob"), join(&program, "cid"));
    ann.expect("* bob joins\n* cid joins\n");
    bob.expect("* cid joins\n");
    bob.send("/kick ann\n");
    bob.expect("* only the one who opened the room may kick\n");
    ann.send("/kick dan\n/kick bob\n");
    ann.expect("* no such member\n* bob was kicked\n");
    cid.expect("* bob was kicked\n");
    bob.expect("* you were kicked: /join another room\n");
    bob.send("still here?\n");
    bob.expect("* you are in no room: /join one\n");
    ann.send("hello\n");
    cid.expect("ann: hello\n");
    bob.send("/join lobby\n");
    bob.expect("* you are in lobby\n");
    for peer in [&mut ann, &mut cid] {
        peer.expect("* bob joins\n");
    }
}

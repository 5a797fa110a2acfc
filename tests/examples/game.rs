use super::program::{Peer, Program};

/// The number of the tick, and the field it has led to.
fn field(peer: &mut Peer) -> (u64, String) {
    let line = peer.line();
    let (tick, field) = line
        .strip_prefix("tick ")
        .and_then(|rest| rest.split_once(": "))
        .unwrap_or_else(|| panic!("{line:?}"));
    (tick.parse().expect("a number"), field.to_owned())
}

#[test]
fn game_moves_all_in_one_tick_and_tells_all_what_has_changed() {
    let program = Program::start("game", &["127.0.0.1:0"]);
    let mut ann = program.connect();
    let (first, alone) = field(&mut ann);
    assert_eq!(alone, "1@10,5");
    let mut bob = program.connect();
    let (second, two) = field(&mut ann);
    assert_eq!(two, "1@10,5 2@10,5");
    assert_eq!(field(&mut bob), (second, two));
    assert!(second > first);

    ann.send("d\n");
    let moved = field(&mut ann);
    assert_eq!(moved.1, "1@11,5 2@10,5");
    assert_eq!(field(&mut bob), moved);
    bob.send("hop\n");
    bob.expect("w, a, s or d\n");
    drop(bob);
    assert_eq!(field(&mut ann).1, "1@11,5");
}

#[test]
fn game_lets_nobody_off_the_field() {
    let program = Program::start("game", &["127.0.0.1:0"]);
    let mut ann = program.connect();
    assert_eq!(field(&mut ann).1, "1@10,5");
    for y in (0..5).rev() {
        ann.send("w\n");
        assert_eq!(field(&mut ann).1, format!("1@10,{y}"));
    }
    ann.send("w\n"); // nothing changes, and nothing is told
    ann.send("s\n");
    assert_eq!(field(&mut ann).1, "1@10,1");
}

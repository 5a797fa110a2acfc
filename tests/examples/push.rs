use super::program::{Peer, Program, until};

#[test]
fn push_tells_every_idle_subscriber() {
    let program = Program::start("push", &["127.0.0.1:0", "127.0.0.1:0"]);
    let at = program.printed[0].strip_prefix("publishers at ").expect("it says where").to_owned();
    let mut publisher = Peer::connect(at.parse().expect("an address"));
    let mut subscribers = Program::run("push", &["subscribe", "200", &program.addr.to_string()]);
    subscribers.line_with("200 subscribers");
    until("all are accepted", || {
        publisher.send("stats\n");
        publisher.line() == "200 subscribers, 0 packets, 0 bytes wait"
    });
    for line in ["hello", "and again"] {
        publisher.send(format!("{line}\n"));
        publisher.expect("on its way to 200 subscribers\n");
        subscribers.line_with(&format!("{line:?}: 200 of 200 have it"));
    }
    program.terminate();
    subscribers.line_with("the server has ended");
    subscribers.finish();
    publisher.expect_end();
    program.finish();
}

use super::program::{Peer, Program, until};

#[test]
fn iot_hub_gives_up_what_does_not_log_in() {
    let program = Program::start("iot_hub", &["127.0.0.1:0", "127.0.0.1:0", "50"]);
    let mut peer = program.connect();
    peer.expect_end();
    let mut wrong = program.connect();
    wrong.send("LOGIN\n");
    wrong.expect_end();
}

#[test]
fn iot_hub_pings_a_device_and_gives_it_up_when_it_does_not_answer() {
    let program = Program::start("iot_hub", &["127.0.0.1:0", "127.0.0.1:0", "60000", "50"]);
    let mut lamp = program.connect();
    lamp.send("LOGIN lamp 0\n");
    lamp.expect("WELCOME lamp\nPING\n");
    lamp.send("PONG\n");
    lamp.expect("PING\nPING\n");
    while lamp.line() == "PING" {}
}

#[test]
fn iot_hub_gives_up_a_device_that_breaks_its_word() {
    let program = Program::start("iot_hub", &["127.0.0.1:0", "127.0.0.1:0"]);
    let mut kettle = program.connect();
    kettle.send("LOGIN kettle 1\n99 degrees\n");
    kettle.expect("WELCOME kettle\nSTORED 1\n");
    kettle.expect_end();
}

/// A connection to the port of the operators.
fn operator(program: &Program) -> Peer {
    let at = program.printed[0].strip_prefix("operators at ").expect("it says where");
    Peer::connect(at.parse().expect("an address"))
}

#[test]
fn iot_hub_pushes_to_a_device_by_its_name() {
    let program = Program::start("iot_hub", &["127.0.0.1:0", "127.0.0.1:0"]);
    let mut operator = operator(&program);
    let log_in = |name: &str| {
        let mut device = program.connect();
        device.send(format!("LOGIN {name} 60\n"));
        device.expect(format!("WELCOME {name}\n"));
        device
    };
    let (mut kettle, mut lamp) = (log_in("kettle"), log_in("lamp"));
    operator.send("devices\npush kettle boil it\npush lamp off\npush door open\n");
    operator.expect("2 devices\nsent to kettle\nsent to lamp\ndoor is not connected\n");
    kettle.expect("boil it\n");
    lamp.expect("off\n");

    // It comes back while the hub still believes in its old connection.
    let mut again = log_in("kettle");
    kettle.expect_end();
    operator.send("push kettle again\ndevices\n");
    operator.expect("sent to kettle\n2 devices\n");
    again.expect("again\n");
    drop(again);
    until("the hub knows", || {
        operator.send("push kettle gone\n");
        operator.line() == "kettle is not connected"
    });
    operator.send("devices\n");
    operator.expect("1 devices\n");
}

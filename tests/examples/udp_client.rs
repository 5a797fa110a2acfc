use super::program::Program;

#[test]
fn udp_client_asks_until_a_server_is_there_and_again_when_it_has_gone() {
    // An address that no other test uses: the port is to be free for the second server.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let first = Program::start("udp_echo", &[&format!("127.{}.{middle}.{low}:0", 128 | high & 0x3f)]);
    let addr = first.addr.to_string();
    let other = Program::start("udp_echo", &["127.0.0.1:0"]);
    let mut client = Program::run("udp_client", &[&addr, &other.addr.to_string()]);
    client.line_with(&format!("{addr}: 1 question 1"));
    client.line_with(&format!("{}: 2 question 2", other.addr));
    drop(first);
    let lost = client.line_with(&format!("{addr}: connection failed"));
    assert!(lost.contains("refused"), "{lost}");
    let _second = Program::start("udp_echo", &[&addr]);
    client.line_with(&format!("{addr}: 1 question 1"));
}

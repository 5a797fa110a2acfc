use super::program::Program;

#[test]
fn reconnecting_client_goes_on_with_a_server_that_comes_back() {
    // An address that no other test uses: the port is to be free for the second server.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let first = Program::start("echo", &[&format!("127.{}.{middle}.{low}:0", 64 | high & 0x3f)]);
    let addr = first.addr.to_string();
    let mut client = Program::run("reconnecting_client", &[&addr, "5"]);
    client.line_with(&format!("connected to {addr}"));
    client.line_with("heard line 1");
    drop(first);
    client.line_with(&format!("lost {addr}: "));
    let _second = Program::start("echo", &[&addr]);
    client.line_with(&format!("connected to {addr}"));
    let heard: Vec<u64> = (0..20).map(|_| number(&client.line_with("heard line "))).collect();
    assert!(heard.windows(2).all(|pair| pair[0] + 1 == pair[1]), "kept, and in order: {heard:?}");
}

fn number(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a numbered line")
}

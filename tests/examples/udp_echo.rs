use std::net::UdpSocket;

use super::program::{PATIENCE, Program};

fn peer(program: &Program) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    socket.connect(program.addr).expect("an address");
    socket
}

#[test]
fn udp_echo_counts_the_datagrams_of_each_peer() {
    let program = Program::start("udp_echo", &["127.0.0.1:0"]);
    let peers: Vec<UdpSocket> = (0..8).map(|_| peer(&program)).collect();
    for number in 1..=3 {
        for peer in &peers {
            let mut reply = [0; 64];
            peer.send(b"hello").expect("it is sent");
            let n = peer.recv(&mut reply).expect("a reply comes");
            assert_eq!(String::from_utf8_lossy(&reply[..n]), format!("{number} hello"));
        }
    }
}

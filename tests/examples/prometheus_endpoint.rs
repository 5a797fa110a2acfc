//! The page for Prometheus, asked for as `curl` does it, and by clients that want something else.

use std::net::SocketAddr;

use crate::program::{Peer, Program, until};

fn start() -> (Program, SocketAddr) {
    let program = Program::start("prometheus_endpoint", &["127.0.0.1:0", "127.0.0.1:0"]);
    let url = program.printed[0].strip_prefix("metrics at http://").expect("it says where");
    let addr = url.strip_suffix("/metrics").expect("it says which page").parse();
    (program, addr.expect("an address"))
}

/// The lines of the reply's head, and its body.
fn ask(addr: SocketAddr, head: &str) -> (Vec<String>, Vec<u8>) {
    let mut peer = Peer::connect(addr);
    peer.send(head);
    let mut lines = vec![peer.line()];
    while lines.last().is_some_and(|line| !line.is_empty()) {
        lines.push(peer.line());
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let body = peer.read(length.expect("it has a length").parse().expect("a number"));
    peer.expect_end();
    (lines, body)
}

fn page(addr: SocketAddr) -> String {
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n";
    let (lines, body) = ask(addr, head);
    assert_eq!(lines[0], "HTTP/1.1 200 OK", "{lines:?}");
    assert!(
        lines.iter().any(|line| line.starts_with("Content-Type: application/openmetrics-text;")),
        "{lines:?}"
    );
    String::from_utf8(body).expect("it is text")
}

#[test]
fn prometheus_endpoint_shows_what_both_services_have_done() {
    let (program, addr) = start();
    let mut peer = program.connect();
    for _ in 0..5 {
        peer.send("hello\n");
        peer.expect("hello\n");
    }
    let counted = |text: &str, line: &str| text.lines().any(|known| known == line);
    until("the packets are counted", || {
        counted(&page(addr), "framewire_received_packets_total{server=\"echo\"} 5.0")
    });
    let text = page(addr);
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(counted(&text, "# TYPE framewire_received_packets counter"), "{text}");
    assert!(counted(&text, "# HELP framewire_sessions Sessions that are open or closing now."), "{text}");
    assert!(counted(&text, "framewire_sessions{server=\"echo\"} 1.0"), "{text}");
    assert!(
        text.contains("framewire_closed_sessions_total{reason=\"peer_closed\",server=\"echo\"} 0.0")
            || text.contains("framewire_closed_sessions_total{server=\"echo\",reason=\"peer_closed\"} 0.0"),
        "{text}"
    );
}

#[test]
fn prometheus_endpoint_serves_one_page_and_is_bounded() {
    let (_program, addr) = start();
    for (head, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("hello\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        let (lines, body) = ask(addr, head);
        assert_eq!((lines[0].as_str(), body.len()), (status, 0));
    }
    let mut rude = Peer::connect(addr);
    rude.send(format!("GET /metrics HTTP/1.1\r\nCookie: {}", "x".repeat(8 * 1024)));
    rude.expect_end();
    until("the refusal is counted", || {
        page(addr).contains("framewire_too_long_frames_total{server=\"page\"} 1.0")
    });
}

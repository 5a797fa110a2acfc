//! The cases of the Autobahn test suite for servers (`fuzzingclient`), sections 1 to 7, and 9 in part, by their numbers.

use super::{
    super::frame::{FIN, Opcode},
    Echo, Frame, frame, whole,
};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a server has to do.
#[derive(Debug, Clone, PartialEq)]
enum Want {
    Message(u8, Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame of this code (0: without one), after which nothing follows.
    Close(u16),
}

struct Case {
    id: String,
    sent: Vec<u8>,
    want: Vec<Want>,
}

fn case(id: impl Into<String>, sent: &[Vec<u8>], want: &[Want]) -> Case {
    Case { id: id.into(), sent: sent.concat(), want: want.to_vec() }
}

fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    whole(Opcode::Text, payload)
}

fn ping(payload: impl AsRef<[u8]>) -> Vec<u8> {
    whole(Opcode::Ping, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(Opcode::Close, [&code.to_be_bytes()[..], reason].concat())
}

fn said(payload: impl AsRef<[u8]>) -> Want {
    Want::Message(TEXT, payload.as_ref().to_vec())
}

fn pong(payload: impl AsRef<[u8]>) -> Want {
    Want::Pong(payload.as_ref().to_vec())
}

/// 1: messages of every width of length. 9: greater ones, whole and in fragments.
fn messages() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, name) in [(TEXT, 1), (BINARY, 2)] {
        for (n, len) in [0, 125, 126, 127, 128, 65_535, 65_536].into_iter().enumerate() {
            let payload = vec![b'*'; len];
            let want = Want::Message(kind, payload.clone());
            cases.push(case(format!("1.{name}.{}", n + 1), &[frame(FIN | kind, &payload)], &[want]));
        }
        for (n, len) in [1 << 16, 1 << 18, 1 << 20].into_iter().enumerate() {
            let payload: Vec<u8> = (0..len).map(|n: u32| (n % 127) as u8).collect();
            let want = [Want::Message(kind, payload.clone())];
            cases.push(case(format!("9.{name}.{}", n + 1), &[frame(FIN | kind, &payload)], &want));
            for piece in [64, 4096, 65_536] {
                let mut sent: Vec<_> = payload.chunks(piece).map(|part| frame(CONTINUATION, part)).collect();
                sent[0][0] |= kind;
                sent.push(frame(FIN, b""));
                cases.push(case(format!("9.{}.{} in {piece}", name + 2, n + 1), &sent, &want));
            }
        }
    }
    cases
}

/// 2: pings and pongs.
fn pings() -> Vec<Case> {
    let (longest, many) = ([0xfe; 125], (0..10).map(|n| format!("payload-{n}")).collect::<Vec<_>>());
    let unsolicited = |payload| whole(Opcode::Pong, payload);
    let pings: Vec<_> = many.iter().map(ping).collect();
    let pongs: Vec<_> = many.iter().map(pong).collect();
    vec![
        case("2.1", &[ping("")], &[pong("")]),
        case("2.2", &[ping("Hello, world!")], &[pong("Hello, world!")]),
        case(
            "2.3",
            &[ping([0, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0, 0xff])],
            &[pong([0, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0, 0xff])],
        ),
        case("2.4, 2.6", &[ping(longest)], &[pong(longest)]),
        case("2.5", &[ping([0xfe; 126])], &[Want::Close(1002)]),
        case("2.7", &[unsolicited("")], &[]),
        case("2.8", &[unsolicited("unsolicited pong payload")], &[]),
        case("2.9", &[unsolicited("unsolicited"), ping("ping payload")], &[pong("ping payload")]),
        case("2.10, 2.11", &pings, &pongs),
    ]
}

/// 3: reserved bits. 4: reserved opcodes.
fn reserved() -> Vec<Case> {
    const FAILS: Want = Want::Close(1002);
    let hello = "Hello, world!";
    let mut cases: Vec<_> = (1..8)
        .map(|rsv| {
            let sent = [text(hello), frame(FIN | rsv << 4 | TEXT, hello.as_bytes()), ping("")];
            case(format!("3.{rsv}"), &sent, &[said(hello), FAILS])
        })
        .collect();
    for rsv in 1..8 {
        for opcode in [BINARY, PING, CLOSE] {
            cases.push(case(
                format!("3: {rsv} in {opcode}"),
                &[frame(FIN | rsv << 4 | opcode, b"")],
                &[FAILS],
            ));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let section = if opcode < 8 { 1 } else { 2 };
        let sent = [text(hello), frame(FIN | opcode, b"payload"), ping("")];
        cases.push(case(format!("4.{section}: {opcode}"), &sent, &[said(hello), FAILS]));
    }
    cases
}

/// 5: fragmentation.
fn fragments() -> Vec<Case> {
    const FAILS: Want = Want::Close(1002);
    let (first, second) = (frame(TEXT, b"fragment1"), frame(FIN, b"fragment2"));
    let whole_text = said("fragment1fragment2");
    let five: Vec<_> = [
        frame(TEXT, b"fragment1"),
        frame(CONTINUATION, b"fragment2"),
        ping("pongme 1!"),
        frame(CONTINUATION, b"fragment3"),
        frame(CONTINUATION, b"fragment4"),
        ping("pongme 2!"),
        frame(FIN, b"fragment5"),
    ]
    .into();
    let answers =
        [pong("pongme 1!"), pong("pongme 2!"), said("fragment1fragment2fragment3fragment4fragment5")];
    vec![
        case("5.1", &[frame(PING, b"fragment1"), second.clone()], &[FAILS]),
        case("5.2", &[frame(PONG, b"fragment1"), second.clone()], &[FAILS]),
        case("5.3 to 5.5", &[first.clone(), second.clone()], std::slice::from_ref(&whole_text)),
        case(
            "5.6 to 5.8",
            &[first.clone(), ping("ping payload"), second.clone()],
            &[pong("ping payload"), whole_text],
        ),
        case("5.9 to 5.11", &[second.clone(), text("Hello, world!")], &[FAILS]),
        case("5.12 to 5.14", &[frame(CONTINUATION, b"non-continuation"), text("Hello, world!")], &[FAILS]),
        case(
            "5.15",
            &[first.clone(), second.clone(), frame(CONTINUATION, b"more"), text("x")],
            &[said("fragment1fragment2"), FAILS],
        ),
        case("5.16, 5.17", &[frame(CONTINUATION, b"fragment1"), first.clone(), second], &[FAILS]),
        case("5.18", &[first, frame(FIN | TEXT, b"fragment2")], &[FAILS]),
        case("5.19, 5.20", &five, &answers),
        case("6.1.2", &[frame(TEXT, b""), frame(CONTINUATION, b""), frame(FIN, b"")], &[said("")]),
        case(
            "6.1.3",
            &[frame(TEXT, b""), frame(CONTINUATION, b"middle frame payload"), frame(FIN, b"")],
            &[said("middle frame payload")],
        ),
        case("a close within fragments", &[frame(TEXT, b"begun"), close(1000, b"")], &[Want::Close(1000)]),
        case("a fragmented close", &[frame(CLOSE, b"")], &[FAILS]),
    ]
}

/// 6: UTF-8.
fn texts() -> Vec<Case> {
    const INVALID: Want = Want::Close(1007);
    let fine = "Hello-µ@ßöäüàá-UTF-8!!";
    let greek = "κόσμε".as_bytes();
    let mut cases = vec![
        case("6.2.1", &[text(fine)], &[said(fine)]),
        case(
            "6.2.2",
            &[frame(TEXT, &fine.as_bytes()[..8]), frame(FIN, &fine.as_bytes()[8..])],
            &[said(fine)],
        ),
        case("6.3.2", &[[greek, b"\xed\xa0\x80edited"].concat()].map(text), &[INVALID]),
        case("6.4.1", &[frame(TEXT, greek), frame(CONTINUATION, b"\xf4\x90\x80\x80"), ping("")], &[INVALID]),
        case(
            "6.4.2",
            &[frame(TEXT, &[greek, b"\xf4"].concat()), frame(CONTINUATION, b"\x90"), ping("")],
            &[INVALID],
        ),
        case("a character cut at the end", &[frame(TEXT, b"\xe2\x82"), frame(FIN, b"")], &[INVALID]),
        case(
            "a character that a ping is within",
            &[frame(TEXT, b"\xe2\x82"), ping("x"), frame(FIN, b"\xac")],
            &[pong("x"), said("€")],
        ),
    ];
    let octets = fine.as_bytes();
    let mut sent: Vec<_> = octets.iter().map(|octet| frame(CONTINUATION, &[*octet])).collect();
    sent[0][0] |= TEXT;
    sent.push(frame(FIN, b""));
    cases.push(case("6.2.3", &sent, &[said(fine)]));
    cases.extend(characters());
    cases
}

/// 6.5 to 6.23: characters at the edges of what there is, and sequences that are none.
fn characters() -> Vec<Case> {
    const INVALID: Want = Want::Close(1007);
    let mut cases = Vec::new();
    let valid = [
        "\u{0}",
        "\u{80}",
        "\u{800}",
        "\u{10000}",
        "\u{7f}",
        "\u{7ff}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
    ];
    cases.extend(
        valid.iter().enumerate().map(|(n, one)| case(format!("6.5 to 6.23 {n}"), &[text(one)], &[said(one)])),
    );
    let invalid: [&[u8]; 22] = [
        b"\xf5",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\x80",
        b"\xbf",
        b"\x80\xbf",
        b"\xc0 \xc1 ",
        b"\xe0 \xe1 ",
        b"\xf0 ",
        b"\xf8 ",
        b"\xfc ",
        b"\xfe",
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
    ];
    cases.extend(
        invalid.iter().enumerate().map(|(n, one)| case(format!("6.6 to 6.21 {n}"), &[text(one)], &[INVALID])),
    );
    cases
}

/// 7: closing.
fn closes() -> Vec<Case> {
    let bye = |code| [Want::Close(code)];
    let mut cases = vec![
        case("7.1.1", &[text("Hello World!"), close(1000, b"")], &[said("Hello World!"), Want::Close(1000)]),
        case("7.1.2, 7.1.3", &[close(1000, b""), close(1000, b""), ping("")], &bye(1000)),
        case("7.1.4", &[close(1000, b""), text("Hello World!")], &bye(1000)),
        case("7.1.5", &[frame(TEXT, b"fragment1"), close(1000, b""), frame(FIN, b"fragment2")], &bye(1000)),
        case(
            "7.1.6",
            &[text([b'B'; 4096]), text("Hello World!"), close(1000, b""), ping("")],
            &[said([b'B'; 4096]), said("Hello World!"), Want::Close(1000)],
        ),
        case("7.3.1", &[whole(Opcode::Close, "")], &bye(0)),
        case("7.3.2", &[whole(Opcode::Close, "a")], &bye(1002)),
        case("7.3.3", &[close(1000, b"")], &bye(1000)),
        case("7.3.4", &[close(1000, b"Hello World!")], &bye(1000)),
        case("7.3.5", &[close(1000, &[b'*'; 123])], &bye(1000)),
        case("7.3.6", &[close(1000, &[b'*'; 124])], &bye(1002)),
        case("7.5.1", &[close(1000, b"\xce\xba\xed\xa0\x80edited")], &bye(1007)),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(case(format!("7.7: {code}"), &[close(code, b"")], &bye(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(case(format!("7.9, 7.13: {code}"), &[close(code, b"")], &bye(1002)));
    }
    cases
}

/// What the suite leaves out.
fn heads() -> Vec<Case> {
    let raw = |head: &[u8]| vec![head.to_vec()];
    let fails = [Want::Close(1002)];
    vec![
        case("no mask", &raw(&[FIN | TEXT, 2, b'h', b'i']), &fails),
        case("no mask on a control frame", &raw(&[FIN | PING, 0]), &fails),
        case("16 bits for 125", &raw(&[FIN | BINARY, 0x80 | 126, 0, 125, 1, 2, 3, 4]), &fails),
        case(
            "64 bits for 65535",
            &raw(&[FIN | BINARY, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]),
            &fails,
        ),
        case(
            "a negative length",
            &raw(&[FIN | BINARY, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
            &fails,
        ),
        case("a long close", &raw(&[FIN | CLOSE, 0x80 | 126, 0, 126]), &fails),
        case(
            "too long by its length",
            &raw(&[FIN | BINARY, 0x80 | 127, 0x7f, 0xff, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
            &[Want::Close(1009)],
        ),
        case(
            "too long by its fragments",
            &[frame(BINARY, &[0; LIMIT]), frame(FIN, &[0])],
            &[Want::Close(1009)],
        ),
        case(
            "exactly the limit",
            &[frame(BINARY, &[7; LIMIT]), frame(FIN, b"")],
            &[Want::Message(BINARY, vec![7; LIMIT])],
        ),
    ]
}

const LIMIT: usize = 1 << 20;

fn run(case: &Case, piece: usize) {
    let mut echo = Echo::open(LIMIT);
    let mut seen: Vec<Frame> = Vec::new();
    for piece in case.sent.chunks(piece) {
        let goes_on = echo.receive(piece);
        seen.extend(echo.answers());
        if !goes_on {
            break;
        }
    }
    let seen: Vec<_> = seen
        .into_iter()
        .map(|(opcode, payload)| match opcode {
            Opcode::Pong => Want::Pong(payload),
            Opcode::Close => Want::Close(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))),
            other => Want::Message(other.bits(), payload),
        })
        .collect();
    // A long list of octets says less than where it differs.
    assert!(seen == case.want, "{} in pieces of {piece}: {:.300?}", case.id, format!("{seen:?}"));
}

fn run_all(cases: Vec<Case>) {
    assert!(!cases.is_empty());
    for case in cases {
        let pieces = [1, 2, 3, 5, 7, 11, 13, 97, 1009, 65_537, usize::MAX];
        // What is long is cut coarsely: an octet at a time takes as many turns.
        pieces
            .into_iter()
            .filter(|piece| case.sent.len() / piece < 70_000)
            .for_each(|piece| run(&case, piece));
    }
}

#[test]
fn sections_1_and_9_messages() {
    run_all(messages());
}

#[test]
fn section_2_pings() {
    run_all(pings());
}

#[test]
fn sections_3_and_4_reserved_bits_and_opcodes() {
    run_all(reserved());
}

#[test]
fn section_5_fragmentation() {
    run_all(fragments());
}

#[test]
fn section_6_utf_8() {
    run_all(texts());
}

#[test]
fn section_7_closing() {
    run_all(closes());
}

#[test]
fn heads_that_the_suite_leaves_out() {
    run_all(heads());
}

#[test]
fn a_message_in_very_many_tiny_fragments_is_refused() {
    let mut echo = Echo::open(10);
    let mut fragments = 0;
    let begun = echo.receive(&frame(BINARY, b"x"));
    assert!(begun);
    // Empty ones are not kept, and cost nothing.
    while fragments < 100_000 && echo.receive(&frame(CONTINUATION, b"")) {
        fragments += 1;
    }
    assert_eq!(fragments, 100_000);
    assert!(!echo.receive(&frame(CONTINUATION, &[0; 10])));
    assert_eq!(echo.answers().pop().map(|(opcode, _)| opcode), Some(Opcode::Close));
    let mut echo = Echo::open(LIMIT);
    assert!(echo.receive(&frame(BINARY, b"x")));
    let tiny = (0..LIMIT).take_while(|_| echo.receive(&frame(CONTINUATION, b"x"))).count();
    assert!((LIMIT / 4..LIMIT / 3).contains(&tiny), "{tiny} fragments of a byte");
    let [(_, payload)] = &echo.answers()[..] else { panic!("nothing but a close frame") };
    assert_eq!(payload[..2], 1008_u16.to_be_bytes());
}

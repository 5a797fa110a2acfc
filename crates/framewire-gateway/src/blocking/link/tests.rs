//! Whatever a gateway sends: arbitrary bytes, however they are cut.

use std::net::TcpListener;

use proptest::{collection::vec, prelude::*};

use super::*;

const MAX_LENGTH: u32 = 40;
const QUEUE: usize = 100;
const BACKLOG: usize = 3;

/// A link without its thread, and the gateway's end of it.
fn link() -> (Link, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (gateway, _) = listener.accept().unwrap();
    let options = EndpointOptions {
        max_length: MAX_LENGTH,
        queue: QUEUE,
        backlog: BACKLOG,
        ..EndpointOptions::default()
    };
    let state = Mutex::default();
    (Link { stream, writer: Mutex::default(), state, changed: Condvar::new(), options }, gateway)
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let command = (0..8_u8, 0..6_u32, 0..6_u32, 0..3_usize).prop_map(|(kind, conn, remote, cut)| {
        let args = [&[kind][..], &conn.to_le_bytes(), &remote.to_le_bytes()].concat();
        let args = &args[..args.len() - 4 * cut];
        [&(args.len() as u32 + 4).to_le_bytes()[..], &[0; 4], args].concat()
    });
    let message = (1..6_u32, 0..40_usize).prop_map(|(conn, len)| {
        [&(len as u32 + 4).to_le_bytes()[..], &conn.to_le_bytes(), &vec![7; len]].concat()
    });
    prop_oneof![4 => command, 6 => message, 1 => vec(any::<u8>(), 0..12)]
}

/// What an endpoint knows and has replied.
type Outcome = (Result<(), String>, Vec<u32>, Vec<(u32, Stage, Vec<Vec<u8>>)>, Vec<(u32, u32)>, Vec<u8>);

fn take(stream: &[u8], cuts: &[usize]) -> Outcome {
    let (link, mut gateway) = link();
    let (mut buffer, mut rest, mut done) = (Vec::new(), stream, Ok(()));
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (part, behind) = rest.split_at(cut.min(rest.len()));
        rest = behind;
        buffer.extend_from_slice(part);
        done = take_frames(&mut buffer, MAX_LENGTH, &link);
        if done.is_err() {
            break;
        }
        assert!(buffer.len() < LENGTH_FIELD + MAX_LENGTH as usize, "only an unfinished frame is kept");
    }
    let State { ids, conns, incoming, .. } = std::mem::take(&mut *link.state());
    assert!(ids.len() <= 16 && incoming.len() <= BACKLOG && conns.len() <= BACKLOG);
    let mut conns: Vec<_> = conns
        .into_iter()
        .map(|(id, conn)| {
            let held: usize = conn.messages.iter().map(|message| message.len() + MESSAGE).sum();
            assert!(held <= QUEUE + MESSAGE + MAX_LENGTH as usize, "{held} bytes wait to be received");
            assert_eq!(held, conn.bytes);
            (id, conn.stage, conn.messages.into())
        })
        .collect();
    conns.sort_unstable_by_key(|(id, ..)| *id);
    drop(link);
    let mut replies = Vec::new();
    gateway.read_to_end(&mut replies).unwrap();
    (done, ids.into(), conns, incoming.into(), replies)
}

const LENGTH_FIELD: usize = 4;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_a_gateway_sends_means_the_same_however_it_is_cut(
        pieces in vec(piece(), 0..30),
        cuts in vec(0..30_usize, 0..30),
    ) {
        let stream = pieces.concat();
        let whole = take(&stream, &[]);
        prop_assert_eq!(&take(&stream, &cuts), &whole);
        prop_assert_eq!(&take(&stream, &vec![1; stream.len()]), &whole);
    }
}

#[test]
fn messages_without_a_byte_fill_a_queue_too() {
    let (link, _gateway) = link();
    let accept = Command::Accept { conn: 1, remote: 2 }.frame();
    let empty = [4, 0, 0, 0, 1, 0, 0, 0].repeat(1_000);
    take_frames(&mut [&accept[..], &empty].concat(), MAX_LENGTH, &link).unwrap();
    let conn = &link.state().conns[&1];
    assert!(conn.messages.len() <= QUEUE / MESSAGE + 1, "{} messages wait", conn.messages.len());
    assert_eq!(conn.stage, Stage::Closed);
}

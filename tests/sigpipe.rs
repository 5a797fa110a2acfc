//! A server in a process of its own in which SIGPIPE is not ignored. The runtime of Rust ignores it where `main` is Rust's; a server
//! within a program of another language, or one that has restored the default action for its children, is not so lucky.
#![cfg(unix)]

mod common;

use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use common::{Client, On, Served, frame};
use framewire::{CloseKind, Handled, LengthPrefix, Session, packet_fn};
use signal_hook::{consts::SIGPIPE, flag};

const CHUNK: usize = 64 * 1024;
/// More than any kernel holds for a client that does not read.
const CHUNKS: usize = 48;

/// One small reply, or one of many chunks that no client has taken when it leaves.
fn reply(session: &mut Session<'_>, packet: &[u8]) -> Handled {
    match packet {
        b"much" => (0..CHUNKS).try_for_each(|_| session.send([7; CHUNK]))?,
        small => session.send(small)?,
    }
    Ok(())
}

/// The server writes to a connection whose peer has ended its side and is gone.
fn write_to_the_gone(on: On) {
    let server = on.bind().framing(LengthPrefix::u32_be());
    let addr = common::addr_of(&server.local_addrs()[0]);
    // Gone before it is accepted, and so before the one write of its reply.
    let mut early = Client::connect(&addr).expect("it is bound");
    early.write(&frame(b"little"));
    drop(early);
    let served = Served::start(server, packet_fn(reply));
    common::until("it has gone", || served.journal.closed() == 1);

    // The server is in the midst of writing several chunks at once.
    let mut client = served.connect_narrow();
    client.send("much");
    assert_eq!(client.read(8), [0, 1, 0, 0, 7, 7, 7, 7]);
    client.end();
    drop(client);
    common::until("it has gone", || served.journal.closed() == 2);
    assert_eq!(served.journal.ended_by(CloseKind::Frame), 0);
    served.finish();
}

#[test]
fn a_peer_that_is_gone_never_raises_sigpipe() {
    let raised = Arc::<AtomicBool>::default();
    flag::register(SIGPIPE, raised.clone()).expect("it may be handled");
    let raising = [On::UnixSocket, On::SingleReactor, On::WorkerPool, On::ThreadPerConnection].map(|on| {
        write_to_the_gone(on);
        raised.swap(false, SeqCst).then_some(on)
    });
    assert_eq!(raising, [None; 4]);

    // It would have been seen.
    let (ours, theirs) = UnixStream::pair().expect("two ends");
    drop(theirs);
    let error = File::from(OwnedFd::from(ours)).write(b"x").expect_err("nobody reads");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(raised.load(SeqCst), "a plain write raises it");
}

//! Servers that do wrong on purpose, so that anyone can see the benchmark catch it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

/// Frames that are served well before the fault: fewer than a first batch of the smallest benchmark in the tests, so that
/// no window is too short for it.
const GOOD: u64 = 50;

/// Flips one bit of the last byte of one reply.
pub(super) fn flip_a_byte(addr: SocketAddr) -> io::Result<()> {
    serve(addr, |count, frame| {
        if let (true, Some(byte)) = (count == GOOD, frame.last_mut()) {
            *byte ^= 1;
        }
    })
}

/// Ends the process, as a crash would.
pub(super) fn exit_early(addr: SocketAddr) -> io::Result<()> {
    serve(addr, |count, _| {
        if count == GOOD {
            eprintln!("ending on purpose after {GOOD} replies");
            std::process::exit(3);
        }
    })
}

fn serve(addr: SocketAddr, fault: fn(u64, &mut [u8])) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let listener = super::listen(addr)?;
    super::announce(listener.local_addr()?)?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            let mut frame = Vec::new();
            while one_frame(&stream, &mut frame).is_ok() {
                fault(COUNT.fetch_add(1, Ordering::Relaxed) + 1, &mut frame);
                if (&stream).write_all(&frame).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

fn one_frame(mut stream: &TcpStream, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let len = u64::from(u32::from_be_bytes(prefix));
    frame.clear();
    frame.extend_from_slice(&prefix);
    stream.take(len).read_to_end(frame)?;
    Ok(())
}

use std::io;
use std::net::SocketAddr;

use may::net::{TcpListener, TcpStream};

/// Blocking style on stackful coroutines: what goroutines are, in Rust. may's defaults but for the number of workers.
pub(super) fn serve(addr: SocketAddr) -> io::Result<()> {
    may::config().set_workers(super::cores());
    let listener = TcpListener::bind(addr)?;
    super::announce(listener.local_addr()?)?;
    let accepting = may::go!(move || {
        while let Ok((stream, _)) = listener.accept() {
            may::go!(move || drop(connection(stream)));
        }
    });
    accepting.join().map_err(|_| io::Error::other("the accepting coroutine panicked"))
}

fn connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    super::echo_blocking(&mut stream)
}

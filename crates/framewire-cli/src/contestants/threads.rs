use std::io;
use std::net::SocketAddr;
use std::thread;

/// A stack that is enough for one buffer's worth of calls; the default of 2 MiB would only be address space, but less
/// of it leaves room for more threads.
const STACK: usize = 64 * 1024;

/// Blocking reads and writes, one thread per connection, nothing but the standard library.
pub(super) fn serve(addr: SocketAddr) -> io::Result<()> {
    let listener = super::listen(addr)?;
    super::announce(listener.local_addr()?)?;
    for stream in listener.incoming() {
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                eprintln!("accept: {error}");
                thread::sleep(std::time::Duration::from_millis(10));
                continue;
            }
        };
        stream.set_nodelay(true)?;
        let spawned = thread::Builder::new().stack_size(STACK).spawn(move || {
            // a connection that breaks concerns no other
            let _ = super::echo_blocking(&mut stream);
        });
        if let Err(error) = spawned {
            eprintln!("cannot start a thread: {error}");
        }
    }
    Ok(())
}

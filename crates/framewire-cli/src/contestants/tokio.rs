use std::io;
use std::net::SocketAddr;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// A task per connection, tokio-util's own codec. On one core the current-thread runtime, which is the faster one there.
pub(super) fn serve(addr: SocketAddr) -> io::Result<()> {
    let mut builder = match super::cores() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(super::cores()).enable_io().build()?;
    let listener = super::listen(addr)?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        super::announce(listener.local_addr()?)?;
        // a spawned task accepts on a worker; block_on itself would stay on the main thread
        let accepting = tokio::spawn(accept(listener));
        accepting.await.map_err(io::Error::other)?
    })
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream));
    }
}

/// Feeds each reply and flushes when no further frame is ready: the batch that came in goes out in one write.
async fn connection(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let codec = LengthDelimitedCodec::builder().max_frame_length(super::MAX_FRAME).new_codec();
    let mut framed = Framed::new(stream, codec);
    while let Some(frame) = framed.next().await {
        framed.feed(frame?.freeze()).await?;
        while let Some(Some(frame)) = framed.next().now_or_never() {
            framed.feed(frame?.freeze()).await?;
        }
        SinkExt::<bytes::Bytes>::flush(&mut framed).await?;
    }
    Ok(())
}

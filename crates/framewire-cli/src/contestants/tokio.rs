use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_util::codec::{Framed, FramedRead, FramedWrite, LengthDelimitedCodec};

use super::Duty;

/// Frames that a subscriber may be behind.
const BEHIND: usize = 1024;

/// A task per connection, tokio-util's own codec. On one core the current-thread runtime, which is the faster one there.
pub(super) fn serve(addr: SocketAddr, duty: Duty) -> io::Result<()> {
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
        let accepting = match duty {
            Duty::Echo => tokio::spawn(accept(listener)),
            Duty::Broadcast => tokio::spawn(accept_subscribers(listener)),
        };
        accepting.await.map_err(io::Error::other)?
    })
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream));
    }
}

async fn accept_subscribers(listener: TcpListener) -> io::Result<()> {
    let (everybody, _) = broadcast::channel(BEHIND);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(subscriber(stream, everybody.clone()));
    }
}

/// Two tasks: one reads and publishes, the other writes what is published.
async fn subscriber(stream: TcpStream, everybody: Sender<Bytes>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let (mut frames, mut sink) = (FramedRead::new(read, codec()), FramedWrite::new(write, codec()));
    if let Some(first) = frames.next().await {
        sink.send(first?.freeze()).await?;
    }
    let published = everybody.subscribe();
    tokio::spawn(write_published(sink, published));
    while let Some(frame) = frames.next().await {
        // fails without subscribers, of which this is one
        let _ = everybody.send(frame?.freeze());
    }
    Ok(())
}

type FrameSink = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// Feeds what is there and flushes. A subscriber that is too far behind is closed.
async fn write_published(mut sink: FrameSink, mut published: Receiver<Bytes>) -> io::Result<()> {
    loop {
        sink.feed(published.recv().await.map_err(io::Error::other)?).await?;
        while let Ok(frame) = published.try_recv() {
            sink.feed(frame).await?;
        }
        SinkExt::<Bytes>::flush(&mut sink).await?;
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(super::MAX_FRAME).new_codec()
}

/// Feeds each reply and flushes when no further frame is ready: the batch that came in goes out in one write.
async fn connection(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut framed = Framed::new(stream, codec());
    while let Some(frame) = framed.next().await {
        framed.feed(frame?.freeze()).await?;
        while let Some(Some(frame)) = framed.next().now_or_never() {
            framed.feed(frame?.freeze()).await?;
        }
        SinkExt::<Bytes>::flush(&mut framed).await?;
    }
    Ok(())
}

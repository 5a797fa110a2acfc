//! The servers: each an echo of messages on one thread, as its own documentation would have it.

use std::{
    error::Error,
    io::{self, Read, Write},
    process, thread,
};

use framewire::{
    Server, SingleReactor, packet_fn,
    websocket::{Messages, WebSocket},
};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::{net::TcpListener, runtime::Builder};
use tokio_tungstenite::accept_async;

/// Serves until standard input ends.
pub(crate) fn serve(name: &str) -> Result<(), Box<dyn Error>> {
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    match name {
        "framewire" => framewire(),
        "tokio-tungstenite" => tungstenite(),
        other => Err(format!("there is no {other}").into()),
    }
}

fn announce(port: u16) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "port {port}")?;
    out.flush()
}

fn framewire() -> Result<(), Box<dyn Error>> {
    let running = Server::bind("127.0.0.1:0")?
        .framing(Messages::new())
        .websocket(WebSocket::new())
        .strategy(SingleReactor::new())
        .spawn(packet_fn(|session, message| Ok(session.send(message)?)))?;
    announce(running.local_addr().ok_or("not TCP")?.port())?;
    Ok(running.wait()?)
}

/// The current-thread runtime, a task per connection; what has come together is answered together.
fn tungstenite() -> Result<(), Box<dyn Error>> {
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.port())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let Ok(mut websocket) = accept_async(stream).await else { return };
                while let Some(Ok(message)) = websocket.next().await {
                    let mut ready = Some(message);
                    while let Some(message) = ready.take() {
                        if message.is_binary() && websocket.feed(message).await.is_err() {
                            return;
                        }
                        // What came with it is answered with it.
                        ready = match websocket.next().now_or_never() {
                            Some(Some(Ok(message))) => Some(message),
                            Some(_) => return,
                            None => None,
                        };
                    }
                    if websocket.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}

//! JSON-RPC 2.0 in lines (<https://www.jsonrpc.org/specification>). `cargo run --release --example json_rpc --features json`,
//! then `echo '{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}' | nc -q1 127.0.0.1 7000`.
//!
//! Requests borrow their texts from the packet, and replies are written into the outbox. No batches and no named
//! parameters.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::borrow::Cow;

use framewire::{Decode, DecodeError, Handled, Json, Separator, Server, Session, packet_fn};
use serde::{Deserialize, Serialize};

const MAX_REQUEST: usize = 64 * 1024;
const PARSE_ERROR: i32 = -32_700;
const METHOD_NOT_FOUND: i32 = -32_601;
const INVALID_PARAMS: i32 = -32_602;

#[derive(Deserialize)]
struct Request<'p> {
    #[serde(borrow)]
    method: Cow<'p, str>,
    #[serde(default)]
    params: Vec<i64>,
    /// A request without one is a notification, which has no reply.
    id: Option<u64>,
}

#[derive(Serialize)]
struct Reply {
    jsonrpc: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
    id: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Result(i64),
    Error { code: i32, message: String },
}

impl Outcome {
    fn error(code: i32, message: impl Into<String>) -> Self {
        Self::Error { code, message: message.into() }
    }
}

fn call(method: &str, params: &[i64]) -> Outcome {
    let number = match method {
        "add" => params.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number)),
        "max" => params.iter().copied().max(),
        _ => return Outcome::error(METHOD_NOT_FOUND, "no such method"),
    };
    number.map_or_else(|| Outcome::error(INVALID_PARAMS, "no numbers, or too large ones"), Outcome::Result)
}

fn on_packet(session: &mut Session<'_>, packet: &[u8]) -> Handled {
    let (id, outcome) = match Json::<Request<'_>>::decode(packet) {
        Ok(Json(Request { id: None, .. })) => return Ok(()),
        Ok(Json(Request { method, params, id })) => (id, call(&method, &params)),
        // The rest of such an error is for our own log: it names our types.
        Err(DecodeError::Format { why, .. }) => (None, Outcome::error(PARSE_ERROR, &*why)),
        Err(error) => return Err(error.into()),
    };
    Ok(session.send(Json(&Reply { jsonrpc: "2.0", outcome, id }))?)
}

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let lines = Separator::lines().max(MAX_REQUEST);
    let running = Server::bind(addr)?.framing(lines).spawn(packet_fn(on_packet))?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}

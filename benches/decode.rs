//! cargo bench --bench decode
//!
//! Nanoseconds per frame: a buffer full of frames is decoded to its end as a session does, without a server.
use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{Criterion, Throughput};
use framewire::{
    Decoded, FixedLength, Framing, LengthField, LengthPrefix, Netstring, Raw, Separator, VarintPrefix,
};

const SMALL: usize = 64;
const LARGE: usize = 16 * 1024;

/// Decodes all of `buf`; gives the number of frames and the bytes of their packets.
fn drain<F: Framing>(framing: &mut F, mut buf: &mut [u8]) -> (u64, usize) {
    let (mut frames, mut bytes) = (0, 0);
    while !buf.is_empty() {
        let Ok(Some(Decoded::Packet { payload, consumed })) = framing.decode(buf) else { break };
        bytes += buf.get(payload).map_or(0, |packet| black_box(packet).len());
        frames += 1;
        buf = buf.get_mut(consumed..).unwrap_or_default();
    }
    (frames, bytes)
}

/// Frames of `len` bytes: as many as fit into 64 KiB, and always 16 or more.
fn decode<F: Framing + Clone>(c: &mut Criterion, name: &str, framing: &F, len: usize) {
    let payload = vec![b'x'; len];
    let count = (64 * 1024 / (len + 8)).max(16);
    let mut wire = BytesMut::new();
    for _ in 0..count {
        framing.encode(&payload, &mut wire).expect("the payload is within the maximum");
    }
    let (frames, bytes) = drain(&mut framing.clone(), &mut wire);
    assert!(frames > 0 && bytes == count * len, "{name}: all is decoded");
    let mut group = c.benchmark_group(format!("decode/{len}"));
    group.throughput(Throughput::Elements(frames));
    let mut framing = framing.clone();
    group.bench_function(name, |b| b.iter(|| drain(&mut framing, black_box(&mut wire))));
    group.finish();
}

fn all(c: &mut Criterion) {
    let field = LengthField::builder(4).strip(4).build().expect("these settings work");
    let either = Separator::any_of(["\r\n", "\n", "\0"]).expect("none is empty");
    let long = Separator::bytes("--boundary").expect("not empty");
    for len in [SMALL, LARGE] {
        decode(c, "u32_be", &LengthPrefix::u32_be(), len);
        decode(c, "u16_le", &LengthPrefix::u16_le(), len);
        decode(c, "u64_be", &LengthPrefix::u64_be(), len);
        decode(c, "length_field", &field, len);
        decode(c, "varint", &VarintPrefix::u32(), len);
        decode(c, "netstring", &Netstring::new(), len);
        decode(c, "byte", &Separator::nul(), len);
        decode(c, "lines", &Separator::lines(), len);
        decode(c, "crlf", &Separator::crlf(), len);
        decode(c, "bytes_10", &long, len);
        decode(c, "any_of_3", &either, len);
        decode(c, "fixed", &FixedLength::new(len).expect("not 0"), len);
        decode(c, "raw", &Raw::new().max(len), len);
    }
}

fn main() {
    let time = Duration::from_secs(1);
    let mut c = Criterion::default().warm_up_time(time / 3).measurement_time(time).configure_from_args();
    all(&mut c);
    c.final_summary();
}

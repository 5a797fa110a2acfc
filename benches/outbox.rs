//! What it costs to queue frames and to take them off again. Run: `cargo bench --features internals --bench outbox`.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{convert::Infallible, hint::black_box};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use framewire::{
    Framing, LengthPrefix,
    framing::{Deframed, Deframer},
    internals::Outbox,
};

fn queue(outbox: &mut Outbox, framing: &LengthPrefix, payload: &[u8]) {
    let queued = outbox.append(payload.len(), |out| framing.encode(black_box(payload), out));
    assert!(queued.is_ok(), "the payload is within the maximum");
}

/// The path of every reply: framed into an outbox that is empty, written whole.
fn one_reply(c: &mut Criterion) {
    let (framing, mut outbox) = (LengthPrefix::u32_be(), Outbox::default());
    let mut group = c.benchmark_group("outbox/one reply");
    for size in [64, 1024, 16 * 1024] {
        let payload = vec![7; size];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{size} B"), |b| {
            b.iter(|| {
                queue(&mut outbox, &framing, &payload);
                let written = outbox.single().map_or(0, <[u8]>::len);
                outbox.advance(written);
                outbox.reset(usize::MAX);
            });
        });
    }
    group.finish();
}

/// Pipelined requests: sixteen replies, one write.
fn sixteen_replies(c: &mut Criterion) {
    let (framing, mut outbox, payload) = (LengthPrefix::u32_be(), Outbox::default(), [7; 64]);
    let mut group = c.benchmark_group("outbox");
    group.throughput(Throughput::Elements(16));
    group.bench_function("sixteen replies of 64 B, written at once", |b| {
        b.iter(|| {
            for _ in 0..16 {
                queue(&mut outbox, &framing, &payload);
            }
            outbox.advance(outbox.len());
            outbox.reset(usize::MAX);
        });
    });
    group.finish();
}

/// What one read of a pipelining peer costs but for the system calls: sixteen frames are cut out of it, handed over, and
/// echoed into the outbox.
fn sixteen_echoes(c: &mut Criterion) {
    let (framing, mut wire) = (LengthPrefix::u32_be(), BytesMut::new());
    for _ in 0..16 {
        framing.encode(&[7; 64], &mut wire).expect("within the maximum");
    }
    let (mut deframer, mut outbox) = (Deframer::new(framing.clone()), Outbox::default());
    let mut group = c.benchmark_group("outbox");
    group.throughput(Throughput::Elements(16));
    group.bench_function("sixteen frames of 64 B, decoded and echoed", |b| {
        b.iter(|| {
            deframer.feed(black_box(&wire));
            while let Ok(Some(Deframed::Packet(packet))) = deframer.poll_frame() {
                let header = framing.length_header().expect("it has one");
                if !outbox.append_in_place(|spare| header.write(packet, spare)) {
                    queue(&mut outbox, &framing, packet);
                }
            }
            assert_eq!(outbox.len(), wire.len());
            outbox.advance(wire.len());
        });
    });
    group.finish();
}

/// A peer that reads slowly: a megabyte waits, and leaves in pieces.
fn slow_reader(c: &mut Criterion) {
    let payload = [7; 1000];
    let mut group = c.benchmark_group("outbox");
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("a megabyte in 10 KiB writes", |b| {
        b.iter(|| {
            let mut outbox = Outbox::default();
            while outbox.len() < 1 << 20 {
                let queued: Result<usize, Infallible> = outbox.append(payload.len(), |out| {
                    out.extend_from_slice(&payload);
                    Ok(())
                });
                assert!(queued.is_ok());
            }
            while !outbox.is_empty() {
                outbox.advance(outbox.len().min(10 * 1024));
            }
            outbox
        });
    });
    group.finish();
}

/// A broadcast to a session for which something waits already: eight frames are queued, from where they are or by a
/// copy, and written together. It tells from which length on sharing pays.
fn shared_or_copied(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox/eight frames");
    group.throughput(Throughput::Elements(8));
    for size in [64, 256, 512, 1024, 4096, 16 * 1024] {
        let frames: Vec<Bytes> = (0..8).map(|_| Bytes::from_owner(vec![7; size])).collect();
        let mut outbox = Outbox::default();
        let mut run = |queue: fn(&mut Outbox, &Bytes)| {
            queue(&mut outbox, &frames[0]);
            for frame in &frames {
                queue(&mut outbox, black_box(frame));
            }
            outbox.advance(outbox.len());
            outbox.reset(usize::MAX);
        };
        group.bench_function(format!("{size} B, shared"), |b| {
            b.iter(|| run(|outbox, frame| outbox.share(frame)))
        });
        group.bench_function(format!("{size} B, copied"), |b| {
            b.iter(|| run(|outbox, frame| outbox.copy(frame)))
        });
    }
    group.finish();
}

criterion_group!(benches, shared_or_copied, one_reply, sixteen_replies, sixteen_echoes, slow_reader);
criterion_main!(benches);

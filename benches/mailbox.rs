//! What a command to a shard costs on its way. Run: `cargo bench --features internals --bench mailbox`.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{
    collections::VecDeque,
    hint::black_box,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use framewire::internals::{Mailbox, MailboxLimits, Wake};

/// As large as the larger commands of a shard.
type Command = [u64; 6];

/// Costs nothing: what is measured is the mailbox, not the system's eventfd.
struct Silent;

impl Wake for Silent {
    fn wake(&self) -> io::Result<()> {
        Ok(())
    }
}

fn mailbox() -> Mailbox<Command> {
    Mailbox::new(MailboxLimits::default(), Arc::new(Silent))
}

fn take_nothing(c: &mut Criterion) {
    let (mailbox, mut batch) = (mailbox(), VecDeque::new());
    c.bench_function("mailbox/take nothing", |b| b.iter(|| mailbox.take(black_box(&mut batch))));
}

/// One turn of a shard: bursts of 1 (a wake-up each), 64 and 1,024 commands posted, then taken.
fn bursts(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox/burst, then take");
    for burst in [1, 64, 1024] {
        group.throughput(Throughput::Elements(burst));
        group.bench_with_input(BenchmarkId::from_parameter(burst), &burst, |b, &burst| {
            let (mailbox, mut batch) = (mailbox(), VecDeque::new());
            b.iter(|| {
                let asleep = mailbox.fall_asleep();
                for number in 0..burst {
                    let _ = black_box(mailbox.post([number; 6], 64));
                }
                mailbox.wake_up();
                mailbox.take(&mut batch);
                batch.clear();
                asleep
            });
        });
    }
    group.finish();
}

/// A post while another thread posts as fast as it can, and this one takes every 64 posts.
fn contended(c: &mut Criterion) {
    c.bench_function("mailbox/post against another thread", |b| {
        let (mailbox, stop) = (mailbox(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = black_box(mailbox.post([1; 6], 64));
                }
            });
            let (mut batch, mut posts) = (VecDeque::new(), 0_u64);
            b.iter(|| {
                let _ = black_box(mailbox.post([2; 6], 64));
                posts += 1;
                if posts % 64 == 0 {
                    mailbox.take(&mut batch);
                    batch.clear();
                }
            });
            stop.store(true, Ordering::Relaxed);
        });
    });
}

criterion_group!(benches, take_nothing, bursts, contended);
criterion_main!(benches);

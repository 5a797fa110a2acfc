//! What a timer costs. Run: `cargo bench --features internals --bench timer_wheel`.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{collections::BTreeMap, hint::black_box};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use framewire::internals::TimerWheel;

/// As many idle timers as a busy shard has sessions.
const SESSIONS: u64 = 100_000;
/// Milliseconds, as an idle timeout would be.
const TIMEOUT: u64 = 60_000;

/// A wheel in which sessions time out over the whole of the next timeout.
fn loaded() -> TimerWheel<u64> {
    let mut wheel = TimerWheel::new();
    for session in 0..SESSIONS {
        wheel.insert(1 + session * TIMEOUT / SESSIONS, session);
    }
    wheel
}

/// A deadline that comes and is withdrawn, as that of a reply that arrives in time. The map is the yardstick.
fn insert_and_cancel(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers/insert and cancel among 100,000");
    let mut wheel = loaded();
    let mut tick = 0_u64;
    group.bench_function("wheel", |b| {
        b.iter(|| {
            tick += 1;
            let key = wheel.insert(TIMEOUT + tick % TIMEOUT, tick);
            wheel.cancel(black_box(key))
        });
    });
    let mut map: BTreeMap<(u64, u64), u64> =
        (0..SESSIONS).map(|session| ((1 + session * TIMEOUT / SESSIONS, session), session)).collect();
    group.bench_function("sorted map", |b| {
        b.iter(|| {
            tick += 1;
            let key = (TIMEOUT + tick % TIMEOUT, tick);
            map.insert(key, tick);
            map.remove(&black_box(key))
        });
    });
    group.finish();
}

/// The part of a turn in which no timer is due.
fn a_quiet_turn(c: &mut Criterion) {
    let (mut wheel, mut out) = (loaded(), Vec::new());
    c.bench_function("timers/next deadline and nothing to expire", |b| {
        b.iter(|| {
            wheel.expire(black_box(0), 1024, &mut out);
            wheel.next_deadline()
        });
    });
}

/// Each session's timer fires and is armed again: every turn of a millisecond, over the moves between levels.
fn fire_and_rearm(c: &mut Criterion) {
    let (mut wheel, mut out, mut now) = (loaded(), Vec::new(), 0);
    c.bench_function("timers/one millisecond of 100,000 a minute that are armed again", |b| {
        b.iter(|| {
            now += 1;
            wheel.expire(now, usize::MAX, &mut out);
            for fired in out.drain(..) {
                wheel.insert(fired.due + TIMEOUT, fired.item);
            }
        });
    });
}

/// A clock that jumped, and a tick that all sessions share: everything is due at once.
fn everything_at_once(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers/expire 100,000");
    group.throughput(Throughput::Elements(SESSIONS)).sample_size(20);
    let one_tick = || {
        let mut wheel = TimerWheel::new();
        (0..SESSIONS).for_each(|session| {
            wheel.insert(TIMEOUT, session);
        });
        wheel
    };
    let shapes = [("spread", loaded as fn() -> _), ("one tick", one_tick)];
    for (name, make) in shapes {
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let setup = || (make(), Vec::with_capacity(SESSIONS as usize));
            b.iter_batched(
                setup,
                |(mut wheel, mut out)| {
                    wheel.expire(u64::MAX, usize::MAX, &mut out);
                    (wheel, out)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, insert_and_cancel, a_quiet_turn, fire_and_rearm, everything_at_once);
criterion_main!(benches);

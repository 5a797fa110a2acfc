use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Fired, LEVELS, Place, TimerKey, TimerWheel};

fn pairs(fired: &[Fired<u64>]) -> Vec<(u64, u64)> {
    fired.iter().map(|fired| (fired.due, fired.item)).collect()
}

fn expired(wheel: &mut TimerWheel<u64>, now: u64) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    wheel.expire(now, usize::MAX, &mut out);
    pairs(&out)
}

#[test]
fn an_empty_wheel_owns_no_memory_and_has_no_deadline() {
    let mut wheel = TimerWheel::new();
    assert_eq!(expired(&mut wheel, u64::MAX), []);
    assert_eq!(wheel.next_deadline(), None);
    assert!(wheel.levels.iter().all(Option::is_none));
}

#[test]
fn each_timer_fires_at_its_tick_at_every_level_boundary() {
    for level in 0..LEVELS as u32 {
        for elapsed in [0, 1, 63, 64, 4095, 4096, (1 << 40) - 1] {
            let span = 1u64 << (6 * level);
            for deadline in [span - 1, span, span + 1].map(|ticks| ticks.saturating_add(elapsed)) {
                let mut wheel = TimerWheel::new();
                expired(&mut wheel, elapsed);
                wheel.insert(deadline, 7);
                assert_eq!(wheel.next_deadline(), Some(deadline));
                if deadline > elapsed {
                    assert_eq!(expired(&mut wheel, deadline - 1), []);
                    assert_eq!(wheel.next_deadline(), Some(deadline));
                }
                assert_eq!(expired(&mut wheel, deadline), [(deadline, 7)]);
                assert!(wheel.is_empty());
            }
        }
    }
}

#[test]
fn every_tick_has_a_place_up_to_the_last_one() {
    assert_eq!(Place::of(0, 63), Place { level: 0, slot: 63 });
    assert_eq!(Place::of(0, 64), Place { level: 1, slot: 1 });
    assert_eq!(Place::of(63, 64), Place { level: 1, slot: 1 });
    assert_eq!(Place::of(0, u64::MAX), Place { level: LEVELS - 1, slot: 15 });
    let mut wheel = TimerWheel::new();
    wheel.insert(u64::MAX, 1);
    assert_eq!(expired(&mut wheel, u64::MAX - 1), []);
    assert_eq!(expired(&mut wheel, u64::MAX), [(u64::MAX, 1)]);
    wheel.insert(5, 2);
    assert_eq!(expired(&mut wheel, 0), [(u64::MAX, 2)]);
}

#[test]
fn a_far_timer_causes_one_wake_up() {
    let mut wheel = TimerWheel::new();
    wheel.insert(123_456_789, 1);
    let wake = wheel.next_deadline().unwrap();
    assert_eq!(expired(&mut wheel, wake), [(123_456_789, 1)]);
}

#[test]
fn a_cancelled_minimum_causes_at_most_one_needless_wake_up() {
    let mut wheel = TimerWheel::new();
    let first = wheel.insert(5_000, 1);
    wheel.insert(5_100, 2);
    assert_eq!(wheel.cancel(first), Some(1));
    let wake = wheel.next_deadline().unwrap();
    assert!(wake <= 5_100);
    expired(&mut wheel, wake);
    assert_eq!(wheel.next_deadline(), Some(5_100));
}

#[test]
fn a_jump_of_the_clock_fires_everything_in_the_order_of_deadlines() {
    let mut wheel = TimerWheel::new();
    let deadlines = [1 << 45, 70, 3, 1 << 20, 64, 3, 1 << 33, 1 << 13];
    for (item, deadline) in deadlines.into_iter().enumerate() {
        wheel.insert(deadline, item as u64);
    }
    let order = [(3, 2), (3, 5), (64, 4), (70, 1), (1 << 13, 7), (1 << 20, 3), (1 << 33, 6), (1 << 45, 0)];
    assert_eq!(expired(&mut wheel, u64::MAX / 2), order);
}

#[test]
fn time_that_goes_backwards_fires_nothing_twice_and_nothing_early() {
    let mut wheel = TimerWheel::new();
    wheel.insert(100, 1);
    assert_eq!(expired(&mut wheel, 1_000).len(), 1);
    wheel.insert(1_500, 2);
    wheel.insert(20, 3);
    assert_eq!(expired(&mut wheel, 10), [(1_000, 3)]);
    assert_eq!(expired(&mut wheel, 0), []);
    assert_eq!(expired(&mut wheel, 1_500), [(1_500, 2)]);
}

#[test]
fn a_hundred_thousand_timers_of_one_tick_fire_by_budget_and_in_order() {
    let mut wheel = TimerWheel::new();
    for item in 0..100_000 {
        wheel.insert(9_999, item);
    }
    let (mut out, mut calls) = (Vec::new(), 0);
    while wheel.next_deadline().is_some_and(|deadline| deadline <= 10_000) {
        let before = out.len();
        wheel.expire(10_000, 1_024, &mut out);
        assert!(out.len() - before <= 1_024);
        calls += 1;
    }
    assert_eq!(calls, 100_000_usize.div_ceil(1_024));
    assert!(pairs(&out).into_iter().eq((0..100_000).map(|item| (9_999, item))));
    assert!(wheel.levels.iter().all(Option::is_none), "the memory of the burst went back");
}

#[test]
fn a_budget_of_nothing_fires_nothing_and_forgets_nothing() {
    let mut wheel = TimerWheel::new();
    wheel.insert(5, 1);
    wheel.expire(10, 0, &mut Vec::new());
    assert_eq!(wheel.next_deadline(), Some(5));
    assert_eq!(expired(&mut wheel, 10), [(5, 1)]);
}

#[test]
fn a_cancelled_minimum_is_not_owed_when_the_budget_is_used_up() {
    let mut wheel = TimerWheel::new();
    let first = wheel.insert(5_000, 1);
    wheel.insert(5_100, 2);
    wheel.cancel(first);
    wheel.expire(5_050, 0, &mut Vec::new());
    assert_eq!(wheel.next_deadline(), Some(5_100));
    wheel.insert(0, 3);
    assert_eq!(expired(&mut wheel, 0), [(5_050, 3)]);
}

#[test]
fn a_stale_key_cancels_nobody() {
    let mut wheel = TimerWheel::new();
    let fired = wheel.insert(1, 1);
    expired(&mut wheel, 1);
    let new = wheel.insert(9, 2);
    assert_eq!(wheel.cancel(fired), None);
    assert_eq!(wheel.cancel(new), Some(2));
    assert_eq!(wheel.cancel(new), None);
    assert!(wheel.is_empty());
}

/// The same promises, kept by a sorted map.
#[derive(Default)]
struct Model {
    elapsed: u64,
    timers: BTreeMap<(u64, u64), TimerKey>,
}

impl Model {
    fn expire(&mut self, now: u64, budget: usize) -> Vec<(u64, u64)> {
        let now = now.max(self.elapsed);
        let due: Vec<_> = self.timers.range(..=(now, u64::MAX)).map(|(&timer, _)| timer).collect();
        let fired = due[..due.len().min(budget)].to_vec();
        for timer in &fired {
            self.timers.remove(timer);
        }
        self.elapsed = due.get(fired.len()).map_or(now, |&(deadline, _)| deadline);
        fired
    }
}

#[derive(Debug, Clone)]
enum Step {
    InsertIn(u64),
    InsertAt(u64),
    Cancel(prop::sample::Index),
    Advance(u64, usize),
    AdvanceTo(u64, usize),
    AdvanceToNext(usize),
}

/// Mostly small, sometimes at a power of 64, sometimes anything.
fn ticks() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..200_u64,
        4 => (0..64_u32, -2..3_i64).prop_map(|(bit, off)| (1_u64 << bit).saturating_add_signed(off)),
        1 => any::<u64>(),
        1 => (0..3_u64).prop_map(|back| u64::MAX - back),
    ]
}

fn budget() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 0..5_usize, 1 => Just(usize::MAX)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => ticks().prop_map(Step::InsertIn),
        1 => ticks().prop_map(Step::InsertAt),
        4 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        3 => (0..5_000_u64, budget()).prop_map(|(by, budget)| Step::Advance(by, budget)),
        1 => (ticks(), budget()).prop_map(|(to, budget)| Step::AdvanceTo(to, budget)),
        3 => budget().prop_map(Step::AdvanceToNext),
    ]
}

proptest! {
    // Longer runs: PROPTEST_CASES=20000.
    #[test]
    fn the_wheel_does_what_a_sorted_map_does(steps in prop::collection::vec(step(), 1..200)) {
        let (mut wheel, mut model) = (TimerWheel::new(), Model::default());
        let (mut keys, mut cancelled) = (Vec::new(), false);
        for (item, step) in steps.into_iter().enumerate() {
            let (now, budget) = match step {
                Step::InsertIn(ticks) | Step::InsertAt(ticks) => {
                    let from = if matches!(step, Step::InsertIn(_)) { model.elapsed } else { 0 };
                    let deadline = from.saturating_add(ticks);
                    let timer = (deadline.max(model.elapsed), item as u64);
                    let key = wheel.insert(deadline, timer.1);
                    keys.push((key, timer));
                    model.timers.insert(timer, key);
                    (None, 0)
                }
                Step::Cancel(which) if !keys.is_empty() => {
                    let (key, timer) = *which.get(&keys);
                    let known = model.timers.remove(&timer).map(|_| timer.1);
                    cancelled |= known.is_some();
                    prop_assert_eq!(wheel.cancel(key), known);
                    (None, 0)
                }
                Step::Cancel(_) => (None, 0),
                Step::Advance(by, budget) => (Some(model.elapsed.saturating_add(by)), budget),
                Step::AdvanceTo(to, budget) => (Some(to), budget),
                Step::AdvanceToNext(budget) => (wheel.next_deadline(), budget),
            };
            if let Some(now) = now {
                let mut out = Vec::new();
                wheel.expire(now, budget, &mut out);
                prop_assert_eq!(pairs(&out), model.expire(now, budget));
            }
            let earliest = model.timers.keys().next().map(|&(deadline, _)| deadline);
            let next = wheel.next_deadline();
            prop_assert_eq!(wheel.len(), model.timers.len());
            prop_assert_eq!(next.is_some(), earliest.is_some());
            prop_assert!(next <= earliest && next.is_none_or(|next| next >= model.elapsed));
            prop_assert!(cancelled || next == earliest);
        }
    }
}

#[test]
fn a_fired_timer_tells_its_key_and_a_waiting_one_its_deadline() {
    let mut wheel = TimerWheel::new();
    let (soon, late) = (wheel.insert(5, 1), wheel.insert(9, 2));
    let mut out = Vec::new();
    wheel.expire(6, usize::MAX, &mut out);
    assert_eq!(out, [Fired { key: soon, due: 5, item: 1 }]);
    assert_eq!((wheel.deadline(soon), wheel.deadline(late)), (None, Some(9)));
}

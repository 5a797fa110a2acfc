use std::time::Duration;

use super::allowance::Allowance;
use super::args::BenchArgs;
use super::case::{Case, Kind, SPARE};
use super::contestant::{Contestant, Roster};
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::machine::{self, Cores, Split};
use super::run::Setup;

/// What a run takes besides what it measures: starting the server, connecting, settling.
const OVERHEAD: Duration = Duration::from_millis(200);

/// How a benchmark without `--duration` and `--repeats` spends its time.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    rounds: usize,
    /// What it is planned to take in all. The rest up to `most` is for runs that other processes disturb.
    budget: Duration,
    /// Where it is on the way to take longer than this (a slow or busy machine), the last rounds are left out.
    most: Duration,
    /// A window is never shorter or longer; seconds.
    window: (f64, f64),
}

/// Under four minutes. Five rounds, since the ends of fewer are too near together: that the median of a repetition lies
/// outside of the ends of five is one chance in thirty or so, of three one in seven.
const FULL: Schedule = Schedule {
    rounds: 5,
    budget: Duration::from_secs(205),
    most: Duration::from_secs(232),
    window: (0.3, 2.0),
};
/// A minute and a half.
const QUICK: Schedule = Schedule {
    rounds: 3,
    budget: Duration::from_secs(75),
    most: Duration::from_secs(88),
    window: (0.2, 1.0),
};

/// Everything that is decided before the first run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub cases: Vec<Case>,
    pub setup: Setup,
    pub rounds: usize,
    /// Descriptors.
    pub limit: Option<u64>,
    /// For a person: what was changed to fit the machine.
    pub notes: Vec<String>,
    pub allowance: Allowance,
}

impl Plan {
    /// Decides, or says what is in the way.
    pub(crate) fn new(args: &BenchArgs, roster: &Roster, interrupt: Interrupt) -> Result<Self, BenchError> {
        if roster.present.is_empty() {
            return Err(BenchError::usage("nobody takes part"));
        }
        let mut notes = Vec::new();
        let limit = machine::raise_descriptor_limit();
        let each = roster.present.iter().map(Contestant::descriptors_each).max().unwrap_or(1);
        let mut cases = Case::matrix(args);
        cases.retain(|case| roster.takers(case, None) > 0);
        if cases.is_empty() {
            return Err(BenchError::usage("none of the contestants can do what these loads ask for"));
        }
        let cases = fit(cases, Descriptors { limit, each }, args.fit, &mut notes)?;
        cases.iter().for_each(|case| roster.note_kept_out(case, limit, &mut notes));
        let split = split(args, &mut notes)?;
        if cfg!(debug_assertions) {
            notes.push("built without optimisation (no --release): these figures mean nothing".into());
        }
        let schedule = if args.quick { QUICK } else { FULL };
        let rounds = args.repeats.unwrap_or(schedule.rounds);
        let runs = cases.iter().map(|case| roster.takers(case, limit)).sum::<usize>() * rounds;
        let duration = args.duration.unwrap_or_else(|| schedule.window_of(runs, args.warm_up));
        let watched = [&split.server, &split.load].into_iter().filter_map(Cores::list).flatten().copied();
        let mut watched: Vec<usize> = watched.collect();
        if watched.is_empty() {
            watched = machine::allowed_cores();
        }
        let setup = Setup { split, watched, duration, warm_up: args.warm_up, port: args.port, interrupt };
        let planned = (duration + args.warm_up + OVERHEAD).as_secs_f64() * runs as f64;
        // a matrix that is far from fitting was asked for all the same
        let fits = args.duration.is_none() && planned <= schedule.budget.as_secs_f64() * 1.5;
        let allowance = if fits { Allowance::of(schedule.most, runs) } else { Allowance::endless() };
        Ok(Self { cases, setup, rounds, limit, notes, allowance })
    }
}

impl Schedule {
    /// The window of each run when there are so many of them.
    fn window_of(&self, runs: usize, warm_up: Duration) -> Duration {
        let each = self.budget.as_secs_f64() / runs.max(1) as f64;
        let left = each - OVERHEAD.as_secs_f64() - warm_up.as_secs_f64();
        Duration::from_secs_f64(left.clamp(self.window.0, self.window.1))
    }
}

/// What there is, and what the contestant that needs most takes of it for each connection.
#[derive(Debug, Clone, Copy)]
struct Descriptors {
    limit: Option<u64>,
    each: u64,
}

/// Sees to it that all connections have descriptors: ours and the server's, which inherits the limit.
fn fit(
    cases: Vec<Case>,
    Descriptors { limit, each }: Descriptors,
    scale: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<Case>, BenchError> {
    // who needs more for a broadcast takes no part in it
    let each_of = |case: &Case| if case.kind == Kind::Broadcast { 1 } else { each };
    let neediest = cases.iter().max_by_key(|case| case.descriptors(each_of(case)));
    let Some((connections, each)) = neediest.map(|case| (case.total() as u64, each_of(case))) else {
        return Ok(cases);
    };
    let needed = connections * each + SPARE;
    let Some(limit) = limit.filter(|&limit| limit < needed) else { return Ok(cases) };
    let room = |each: u64| limit.saturating_sub(SPARE) / each;
    if !scale || room(each) == 0 {
        return Err(BenchError::Descriptors { needed, connections, each, spare: SPARE, limit });
    }
    notes.push(format!(
        "the descriptor limit of {limit} leaves room for {} of {connections} connections, so the larger cases were \
         scaled down",
        room(each)
    ));
    let mut fitted: Vec<Case> = Vec::new();
    for case in cases {
        let case = case.fitted(usize::try_from(room(each_of(&case))).unwrap_or(usize::MAX));
        if !fitted.contains(&case) {
            fitted.push(case);
        }
    }
    Ok(fitted)
}

fn split(args: &BenchArgs, notes: &mut Vec<String>) -> Result<Split, BenchError> {
    if args.no_pin {
        return Ok(Split { server: Cores::anywhere(1), load: Cores::anywhere(1) });
    }
    let allowed = machine::allowed_cores();
    let mut split = Split::halves();
    for (wanted, side) in [(&args.server_cpus, &mut split.server), (&args.load_cpus, &mut split.load)] {
        let Some(wanted) = wanted else { continue };
        if !machine::can_pin() || !wanted.0.iter().all(|core| allowed.contains(core)) {
            return Err(BenchError::Pin {
                cores: Cores::pinned(wanted.0.clone()).to_string(),
                allowed: Cores::pinned(allowed).to_string(),
            });
        }
        *side = Cores::pinned(wanted.0.clone());
    }
    match (split.server.list(), split.load.list()) {
        (Some(server), Some(load)) if server.iter().any(|core| load.contains(core)) => {
            notes
                .push("servers and load generator share cores: throughput and latency depend on both".into());
        }
        (None, _) | (_, None) => notes.push(
            "nothing is pinned (one core, or a system that does not allow it): expect more noise".into(),
        ),
        _ => {}
    }
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(connections: usize) -> Case {
        Case { kind: Kind::Echo, connections, silent: 0, size: 8, pipeline: 1, rate: None }
    }

    fn limit(limit: u64) -> Descriptors {
        Descriptors { limit: Some(limit), each: 1 }
    }

    #[test]
    fn too_few_descriptors_are_an_error_that_says_how_many() {
        let error = fit(vec![case(1000)], limit(1024), false, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("1100 descriptors are needed"), "{error}");
        assert!(error.to_string().contains("the limit is 1024"), "{error}");
    }

    #[test]
    fn fitting_scales_down_and_drops_what_has_become_the_same() {
        let mut notes = Vec::new();
        let cases = fit(vec![case(50), case(1000), case(2000)], limit(400), true, &mut notes).unwrap();
        assert_eq!(cases.iter().map(|case| case.connections).collect::<Vec<_>>(), [50, 300]);
        assert_eq!(notes.len(), 1);
        assert!(fit(vec![case(50)], limit(90), true, &mut notes).is_err());
    }

    #[test]
    fn the_contestant_that_needs_most_for_a_connection_decides() {
        let threads = Descriptors { limit: Some(400), each: 3 };
        let cases = fit(vec![case(100), case(150)], threads, true, &mut Vec::new()).unwrap();
        assert_eq!(cases, [case(100)]);
        let error = fit(vec![case(150)], threads, false, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("550 descriptors are needed"), "{error}");
    }

    #[test]
    fn enough_descriptors_change_nothing() {
        let mut notes = Vec::new();
        assert_eq!(fit(vec![case(50)], limit(150), false, &mut notes).unwrap(), [case(50)]);
        assert_eq!(
            fit(vec![case(50)], Descriptors { limit: None, each: 3 }, false, &mut notes).unwrap(),
            [case(50)]
        );
        assert!(notes.is_empty());
    }

    #[test]
    fn the_window_keeps_to_the_budget_and_to_its_bounds() {
        let warm_up = Duration::from_millis(100);
        assert_eq!(FULL.window_of(1, warm_up), Duration::from_secs(2));
        assert_eq!(FULL.window_of(100_000, warm_up), Duration::from_millis(300));
        let each = FULL.window_of(200, warm_up) + warm_up + OVERHEAD;
        assert!((each.as_secs_f64() * 200.0 - FULL.budget.as_secs_f64()).abs() < 1.0);
    }

    #[test]
    fn what_is_planned_leaves_time_for_disturbed_runs() {
        for schedule in [FULL, QUICK] {
            assert!(schedule.budget < schedule.most);
        }
        assert!(FULL.most < Duration::from_secs(240), "the help promises four minutes");
        assert!(QUICK.most < Duration::from_secs(90));
    }
}

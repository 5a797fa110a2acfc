use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::args::BenchArgs;
use super::case::Case;
use super::contestant::{Contestant, Roster};
use super::error::BenchError;
use super::machine::{self, Cores, Split};
use super::progress::Progress;
use super::results::{CaseResult, Environment, FORMAT, Results, Row, Run, Settings};
use super::run::Setup;
use super::summary::summarize;

/// Descriptors for everything but the connections: standard streams, polls, pipes, the idle case's first connections.
const SPARE: u64 = 100;
/// What a benchmark without `--duration` is planned to take in all.
const BUDGET: Duration = Duration::from_secs(95);
/// What a run takes besides what it measures: starting the server, connecting, settling.
const OVERHEAD: Duration = Duration::from_millis(150);
/// A chosen duration is never outside of these; seconds.
const DURATIONS: (f64, f64) = (0.25, 2.0);

/// Everything that is decided before the first run.
#[derive(Debug)]
pub(crate) struct Plan {
    cases: Vec<Case>,
    setup: Setup,
    repeats: usize,
    limit: Option<u64>,
    notes: Vec<String>,
    start: Instant,
    allowance: Allowance,
}

impl Plan {
    /// Decides, or says what is in the way.
    pub(crate) fn new(args: &BenchArgs, roster: &Roster) -> Result<Self, BenchError> {
        if roster.present.is_empty() {
            return Err(BenchError::usage("nobody takes part"));
        }
        let mut notes = Vec::new();
        let limit = machine::raise_descriptor_limit();
        let each = roster.present.iter().map(Contestant::descriptors_each).max().unwrap_or(1);
        let cases = fit(Case::matrix(args), Descriptors { limit, each }, args.fit, &mut notes)?;
        let split = split(args, &mut notes)?;
        if cfg!(debug_assertions) {
            notes.push("built without optimisation (no --release): these figures mean nothing".into());
        }
        let runs = cases.len() * roster.present.len() * args.repeats;
        let duration = args.duration.unwrap_or_else(|| chosen_duration(runs, args.warm_up));
        let watched = [&split.server, &split.load].into_iter().filter_map(Cores::list).flatten().copied();
        let mut watched: Vec<usize> = watched.collect();
        if watched.is_empty() {
            watched = machine::allowed_cores();
        }
        let setup = Setup { split, watched, duration, warm_up: args.warm_up, port: args.port };
        let planned = (duration + args.warm_up + OVERHEAD).as_secs_f64() * runs as f64;
        // a matrix that is far from fitting into two minutes was asked for all the same
        let fits = args.duration.is_none() && planned <= BUDGET.as_secs_f64() * 1.5;
        let allowance = if fits { Allowance::two_minutes(runs) } else { Allowance::endless() };
        Ok(Self { cases, setup, repeats: args.repeats, limit, notes, start: Instant::now(), allowance })
    }

    /// Runs everything: case by case, round by round, each contestant once in each round.
    pub(crate) fn carry_out(mut self, roster: Roster) -> Result<Results, BenchError> {
        self.start = Instant::now();
        let go_takes_part = roster.present.iter().any(|contestant| contestant.name == "go");
        let mut environment = Environment::look(self.limit, go_takes_part);
        if let Some(cores) = self.setup.split.load.list() {
            machine::pin_thread(cores);
        }
        let mut progress = Progress::new(self.cases.len() * roster.present.len() * self.repeats);
        for missing in &roster.missing {
            progress.say(&format!(
                "skipped {}: {}",
                missing.name,
                missing.skipped.as_deref().unwrap_or_default()
            ));
        }
        let mut results = Vec::new();
        for case in std::mem::take(&mut self.cases) {
            results.push(self.case(case, &roster.present, &mut progress)?);
        }
        drop(progress);
        if self.allowance.rounds_left_out() > 0 {
            self.notes.push(format!(
                "the machine was slow or busy: {} rounds of some cases were left out to end within two minutes",
                self.allowance.rounds_left_out()
            ));
        }
        environment.seconds = self.start.elapsed().as_secs_f64();
        Ok(Results {
            format: FORMAT,
            ok: results.iter().flat_map(|case| &case.rows).all(|row| row.error.is_none()),
            environment,
            settings: self.settings(),
            contestants: roster.infos(),
            cases: results,
        })
    }

    fn case(
        &mut self,
        case: Case,
        contestants: &[Contestant],
        progress: &mut Progress,
    ) -> Result<CaseResult, BenchError> {
        let title = case.title();
        let mut rows: Vec<Row> = contestants.iter().map(Row::empty).collect();
        for round in 0..self.repeats {
            if round > 0 && !self.allowance.has_room_for(contestants.len(), self.start.elapsed()) {
                continue;
            }
            // who begins changes, so that nobody always has the same neighbour
            for turn in 0..contestants.len() {
                let at = (turn + round) % contestants.len();
                let (Some(who), Some(row)) = (contestants.get(at), rows.get_mut(at)) else { continue };
                if row.runs.iter().any(|run| run.error.is_some()) {
                    // what has failed once can only cost time
                    self.allowance.run_done();
                    progress.end();
                    continue;
                }
                progress.begin(&who.name, &title);
                let run = self.run(&case, who, round, progress)?;
                if let Some(error) = &run.error {
                    progress.say(&format!("{}: {title}: {error}", who.name));
                }
                row.runs.push(run);
                self.allowance.run_done();
                progress.end();
            }
        }
        summarize(&mut rows);
        Ok(CaseResult { title, says: case.says().to_owned(), unit: case.unit().to_owned(), case, rows })
    }

    /// A failure of one server fails its row; anything else ends the benchmark.
    fn run(
        &self,
        case: &Case,
        who: &Contestant,
        round: usize,
        progress: &Progress,
    ) -> Result<Run, BenchError> {
        let glance = |per_second| progress.glance(per_second, case.unit());
        match self.setup.run(case, who, glance) {
            Ok(run) => Ok(Run { round, ..run }),
            Err(error) if error.is_of_one_run() => {
                Ok(Run { round, error: Some(error.to_string()), ..Run::default() })
            }
            Err(error) => Err(error),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            duration_seconds: self.setup.duration.as_secs_f64(),
            warm_up_seconds: self.setup.warm_up.as_secs_f64(),
            repeats: self.repeats,
            server_cpus: self.setup.split.server.to_string(),
            load_cpus: self.setup.split.load.to_string(),
            load_threads: self.setup.split.load.threads(),
            notes: self.notes.clone(),
        }
    }
}

impl Row {
    fn empty(contestant: &Contestant) -> Self {
        Self { contestant: contestant.name.clone(), summary: None, error: None, runs: Vec::new() }
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
    let connections = cases.iter().map(Case::total).max().unwrap_or_default() as u64;
    let needed = connections * each + SPARE;
    let Some(limit) = limit.filter(|&limit| limit < needed) else { return Ok(cases) };
    let room = limit.saturating_sub(SPARE) / each;
    if !scale || room == 0 {
        return Err(BenchError::Descriptors { needed, connections, each, spare: SPARE, limit });
    }
    notes.push(format!(
        "the descriptor limit of {limit} leaves room for {room} of {connections} connections, so the larger cases \
         were scaled down"
    ));
    let mut fitted: Vec<Case> = Vec::new();
    for case in cases {
        let case = case.fitted(usize::try_from(room).unwrap_or(usize::MAX));
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

fn chosen_duration(runs: usize, warm_up: Duration) -> Duration {
    let each = BUDGET.as_secs_f64() / runs.max(1) as f64;
    let left = each - OVERHEAD.as_secs_f64() - warm_up.as_secs_f64();
    Duration::from_secs_f64(left.clamp(DURATIONS.0, DURATIONS.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::Kind;

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
    fn whoever_needs_most_for_a_connection_decides() {
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
    fn the_chosen_duration_keeps_to_the_budget() {
        let warm_up = Duration::from_millis(100);
        assert_eq!(chosen_duration(1, warm_up), Duration::from_secs(2));
        let each = chosen_duration(150, warm_up) + warm_up + OVERHEAD;
        assert!((each.as_secs_f64() * 150.0 - BUDGET.as_secs_f64()).abs() < 1.0);
    }
}

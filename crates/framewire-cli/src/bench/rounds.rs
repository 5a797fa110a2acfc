//! The order of the runs.
//!
//! ```text
//! round 1   load 1: A B C   load 2: A B C   …   load 8: A B C
//! round 2   load 1: C B A   load 2: C B A   …
//! round 3   load 1: C A B   …
//! ```
//!
//! Within a round the contestants run on a load one right after the other, so that what is compared was measured in the
//! same seconds. The rounds of one load are spread over the whole benchmark, so that their spread has in it what the
//! machine does over minutes, as a repetition will have.

use std::time::Instant;

use super::case::Case;
use super::contestant::{Contestant, Roster};
use super::error::BenchError;
use super::machine;
use super::plan::Plan;
use super::progress::Progress;
use super::results::{CaseResult, Environment, FORMAT, LeftOut, Results, Row, Run, Settings};
use super::summary::summarize;
use super::text::counted;

/// A plan that is being carried out.
#[derive(Debug)]
pub(crate) struct Rounds {
    plan: Plan,
    roster: Roster,
    loads: Vec<Load>,
    progress: Progress,
    start: Instant,
    /// Rounds of a load for which there was no time.
    without_time: usize,
}

/// One load, and what has been measured on it.
#[derive(Debug)]
struct Load {
    case: Case,
    title: String,
    rows: Vec<Row>,
}

impl Rounds {
    /// Carries out a plan. An interrupt ends it early, with what there is by then.
    pub(crate) fn carry_out(mut plan: Plan, roster: Roster) -> Result<Results, BenchError> {
        let rows = || roster.present.iter().map(Row::empty).collect();
        let load = |case: Case| Load { title: case.title(), rows: rows(), case };
        let loads: Vec<Load> = std::mem::take(&mut plan.cases).into_iter().map(load).collect();
        let runs =
            loads.iter().map(|load| roster.takers(&load.case, plan.limit)).sum::<usize>() * plan.rounds;
        let progress = Progress::new(runs);
        let mut this = Self { plan, roster, loads, progress, start: Instant::now(), without_time: 0 };
        let go_takes_part = this.roster.present.iter().any(|contestant| contestant.name == "go");
        let mut environment = Environment::look(this.plan.limit, go_takes_part);
        if let Some(cores) = this.plan.setup.split.load.list() {
            machine::pin_thread(cores);
        }
        this.say_who_is_missing();
        this.run_all()?;
        environment.seconds = this.start.elapsed().as_secs_f64();
        this.into_results(environment)
    }

    fn say_who_is_missing(&self) {
        for missing in &self.roster.missing {
            let reason = missing.skipped.as_deref().unwrap_or_default();
            self.progress.say(&format!("skipped {}: {reason}", missing.name));
        }
    }

    fn run_all(&mut self) -> Result<(), BenchError> {
        let mut loads = std::mem::take(&mut self.loads);
        let result = (0..self.plan.rounds)
            .try_for_each(|round| loads.iter_mut().try_for_each(|load| self.round(load, round)));
        self.loads = loads;
        result
    }

    /// Every contestant once on one load.
    fn round(&mut self, load: &mut Load, round: usize) -> Result<(), BenchError> {
        let contestants = self.roster.present.len();
        let takers = self.roster.takers(&load.case, self.plan.limit);
        if self.is_interrupted() {
            return Ok(());
        }
        // the first round is what makes a table at all
        if round > 0 && !self.plan.allowance.has_time_for(takers, self.start.elapsed()) {
            self.without_time += 1;
            return Ok(());
        }
        self.progress.load(&format!("round {} of {}", round + 1, self.plan.rounds), &load.title);
        for at in order(contestants, round) {
            let (Some(who), Some(row)) = (self.roster.present.get(at).cloned(), load.rows.get_mut(at)) else {
                continue;
            };
            if !who.takes(&load.case, self.plan.limit) {
                continue;
            }
            // what has failed once can only cost time
            if row.runs.iter().all(|run| run.error.is_none()) {
                let runs = self.runs(&load.case, &load.title, &who, round)?;
                if self.is_interrupted() {
                    // the last one was cut short
                    leave_out_incomplete(&mut load.rows, round);
                    return Ok(());
                }
                row.runs.extend(runs);
            }
            self.plan.allowance.run_done();
            self.progress.end();
        }
        Ok(())
    }

    /// One contestant's run in a round; where other processes disturbed it and there is time, it is done once more.
    fn runs(
        &mut self,
        case: &Case,
        title: &str,
        who: &Contestant,
        round: usize,
    ) -> Result<Vec<Run>, BenchError> {
        self.progress.begin(&who.name, title);
        let mut runs = vec![self.run(case, who, round)?];
        let is_disturbed = runs.iter().all(Run::is_noisy) && !self.is_interrupted();
        if is_disturbed && self.plan.allowance.has_time_to_spare(self.start.elapsed()) {
            runs.push(self.run(case, who, round)?);
            leave_out_disturbed(&mut runs);
        }
        for error in runs.iter().filter_map(|run| run.error.as_ref()).filter(|_| !self.is_interrupted()) {
            self.progress.say(&format!("{}: {title}: {error}", who.name));
        }
        Ok(runs)
    }

    /// A failure of one server fails its row; anything else ends the benchmark.
    fn run(&self, case: &Case, who: &Contestant, round: usize) -> Result<Run, BenchError> {
        let glance = |per_second| self.progress.glance(per_second, case.unit());
        match self.plan.setup.run(case, who, glance) {
            Ok(run) => Ok(Run { round, ..run }),
            Err(error) if error.is_of_one_run() => {
                Ok(Run { round, error: Some(error.to_string()), ..Run::default() })
            }
            Err(error) => Err(error),
        }
    }

    fn is_interrupted(&self) -> bool {
        self.plan.setup.interrupt.came()
    }

    fn into_results(mut self, environment: Environment) -> Result<Results, BenchError> {
        let interrupted = self.is_interrupted();
        let loads = std::mem::take(&mut self.loads);
        let planned = loads.len();
        let cases: Vec<CaseResult> =
            loads.into_iter().filter(Load::is_measured).map(Load::into_result).collect();
        if cases.is_empty() {
            return Err(BenchError::NothingMeasured);
        }
        if interrupted {
            self.plan.notes.push(interrupt_note(cases.len(), planned));
        }
        if let (1.., Some(most)) = (self.without_time, self.plan.allowance.most()) {
            self.plan.notes.push(format!(
                "the machine was slow or busy: {} (of one load each) left out to end within {} s",
                counted(self.without_time, "round"),
                most.as_secs()
            ));
        }
        Ok(Results {
            format: FORMAT,
            ok: cases.iter().flat_map(|case| &case.rows).all(|row| row.error.is_none()),
            interrupted,
            environment,
            settings: self.settings(),
            contestants: self.roster.infos(),
            cases,
        })
    }

    fn settings(&self) -> Settings {
        let setup = &self.plan.setup;
        Settings {
            duration_seconds: setup.duration.as_secs_f64(),
            warm_up_seconds: setup.warm_up.as_secs_f64(),
            repeats: self.plan.rounds,
            server_cpus: setup.split.server.to_string(),
            load_cpus: setup.split.load.to_string(),
            load_threads: setup.split.load.threads(),
            notes: self.plan.notes.clone(),
        }
    }
}

fn interrupt_note(measured: usize, planned: usize) -> String {
    let loads = match planned - measured {
        0 => String::new(),
        _ => format!(", and {measured} of {planned} loads are here at all"),
    };
    format!("interrupted: the last rounds are missing{loads}")
}

impl Load {
    fn is_measured(&self) -> bool {
        self.rows.iter().any(|row| !row.runs.is_empty())
    }

    fn into_result(mut self) -> CaseResult {
        summarize(&mut self.rows);
        CaseResult {
            title: self.title,
            says: self.case.says().to_owned(),
            unit: self.case.unit().to_owned(),
            case: self.case,
            rows: self.rows,
        }
    }
}

impl Row {
    fn empty(contestant: &Contestant) -> Self {
        Self { contestant: contestant.name.clone(), summary: None, error: None, runs: Vec::new() }
    }
}

/// The order of the contestants in a round. The first one and the direction change from round to round, so that none
/// always has the same neighbour.
fn order(contestants: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contestants).collect();
    order.rotate_left(round % contestants.max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Of a run and its repetition the one counts that was disturbed less, whatever the two have shown. A failure always
/// counts.
fn leave_out_disturbed(runs: &mut [Run]) {
    let [first, second] = runs else { return };
    if second.error.is_some() || second.foreign_cpus < first.foreign_cpus {
        first.left_out = Some(LeftOut::Disturbed);
    } else {
        second.left_out = Some(LeftOut::Disturbed);
    }
}

/// In a round that was cut short the contestants were not all measured: it would be in some figures and not in others.
/// Where it is the only one, it is better than nothing.
fn leave_out_incomplete(rows: &mut [Row], round: usize) {
    let runs = rows.iter_mut().flat_map(|row| &mut row.runs).filter(|run| round > 0 && run.round == round);
    for run in runs.filter(|run| run.counts()) {
        run.left_out = Some(LeftOut::Incomplete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(foreign: f64) -> Run {
        Run { foreign_cpus: Some(foreign), ..Run::default() }
    }

    #[test]
    fn everybody_runs_once_in_a_round_and_the_neighbours_change() {
        assert_eq!((order(3, 0), order(3, 1), order(3, 2)), (vec![0, 1, 2], vec![0, 2, 1], vec![2, 0, 1]));
        for round in 0..9 {
            let mut order = order(7, round);
            order.sort_unstable();
            assert_eq!(order, (0..7).collect::<Vec<_>>());
        }
    }

    #[test]
    fn of_two_disturbed_runs_the_quieter_one_counts_whatever_it_shows() {
        for (foreign, counts) in [(0.5, [true, false]), (0.2, [false, true])] {
            let mut runs = [noisy(0.3), noisy(foreign)];
            leave_out_disturbed(&mut runs);
            assert_eq!(runs.each_ref().map(Run::counts), counts);
        }
        let mut runs = [noisy(0.3), Run { error: Some("wrong".into()), ..Run::default() }];
        leave_out_disturbed(&mut runs);
        assert_eq!(runs.each_ref().map(Run::counts), [false, false], "a failure is never left out");
        assert!(runs[1].left_out.is_none());
    }

    #[test]
    fn a_round_that_was_cut_short_counts_only_where_it_is_the_only_one() {
        let row = |rounds: &[usize]| Row {
            contestant: "x".into(),
            summary: None,
            error: None,
            runs: rounds.iter().map(|&round| Run { round, ..Run::default() }).collect(),
        };
        let counting =
            |rows: &[Row]| rows.iter().flat_map(|row| &row.runs).filter(|run| run.counts()).count();
        let mut rows = [row(&[0, 1]), row(&[0])];
        leave_out_incomplete(&mut rows, 1);
        assert_eq!(counting(&rows), 2);
        let mut rows = [row(&[0]), row(&[])];
        leave_out_incomplete(&mut rows, 0);
        assert_eq!(counting(&rows), 1);
    }
}

//! From runs to figures.
//!
//! The unit is the round: within it every contestant runs once on the same load, one right after the other. A figure is
//! the median over its rounds. A ratio is the quotient of two such medians, so that it is what the table beside it
//! says; its ends are the lowest and the highest quotient within a round, where drift of the machine cancels out. It
//! always lies between them: where `x ≤ r·b` in each round, the median of `x` is at most `r` times that of `b`.

use hdrhistogram::Histogram;

use super::results::{Figure, Latencies, Latency, Mark, Row, Run, Summary};

/// Quantiles at which the latency curve is drawn: even steps on the axis `log10(1 / (1 - q))`.
const CURVE_STEPS: u32 = 40;
/// The curve ends at 99.99 %.
const CURVE_NINES: f64 = 4.0;

/// Fills in the summaries of one case. The first row with runs is what the others are compared with.
pub(crate) fn summarize(rows: &mut [Row]) {
    for row in rows.iter_mut() {
        row.error = row.runs.iter().find_map(|run| run.error.clone());
    }
    let base = rows.iter().find(|row| !row.runs.is_empty());
    let summaries: Vec<Option<Summary>> = rows.iter().map(|row| summary(row, base)).collect();
    for (row, summary) in rows.iter_mut().zip(summaries) {
        row.summary = summary;
    }
}

fn summary(row: &Row, base: Option<&Row>) -> Option<Summary> {
    let runs: Vec<&Run> = row.runs.iter().filter(|run| run.counts()).collect();
    if runs.is_empty() {
        return None;
    }
    let over = |figure: fn(&Run) -> Option<f64>| Figure::of(runs.iter().filter_map(|run| figure(run)));
    Some(Summary {
        rounds: runs.len(),
        per_second: over(|run| run.per_second),
        cpu_ns: over(|run| run.cpu_ns),
        ratio: base.and_then(|base| ratio(row, base)),
        server_cpus: over(|run| run.server_cpus),
        latency: Latencies::of(&runs),
        latency_curve: curve_over(&runs),
        context_switches: over(|run| run.context_switches),
        memory_bytes: over(|run| run.memory_bytes),
        bytes_per_connection: over(|run| run.bytes_per_connection),
        bytes_after_close: over(|run| run.bytes_after_close),
        generator_busy: over(|run| run.generator_busy),
        foreign_cpus: over(|run| run.foreign_cpus),
        marks: common_marks(&runs),
    })
}

/// A mark stands when at least half of the rounds have it.
fn common_marks(runs: &[&Run]) -> Vec<Mark> {
    let has = |mark: &Mark| runs.iter().filter(|run| run.marks.contains(mark)).count();
    let all = [Mark::GeneratorBound, Mark::Noisy, Mark::Overloaded];
    all.into_iter().filter(|mark| has(mark) * 2 >= runs.len()).collect()
}

/// Over the rounds that both have; none where one has failed, since the rounds before that are not those of the others.
fn ratio(row: &Row, base: &Row) -> Option<Figure> {
    if row.error.is_some() || base.error.is_some() {
        return None;
    }
    let pair = |run: &Run| {
        let base = base.runs.iter().find(|base| base.round == run.round && base.counts())?;
        let (own, other) = (cost(run)?, cost(base)?);
        (other > 0.0).then_some((own, other))
    };
    let pairs: Vec<(f64, f64)> = row.runs.iter().filter(|run| run.counts()).filter_map(pair).collect();
    let ends = Figure::of(pairs.iter().map(|(own, other)| own / other))?;
    let own = Figure::of(pairs.iter().map(|(own, _)| *own))?;
    let other = Figure::of(pairs.iter().map(|(_, other)| *other))?;
    Some(Figure { median: own.median / other.median, ..ends })
}

/// What contestants are compared by.
fn cost(run: &Run) -> Option<f64> {
    run.bytes_per_connection.or(run.cpu_ns)
}

/// The curve of one run, at quantiles that are the same for all; it ends where the messages do.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let most = (histogram.len() as f64).log10();
    let nines = (0..=CURVE_STEPS).map(|step| CURVE_NINES * f64::from(step) / f64::from(CURVE_STEPS));
    nines
        .take_while(|nines| *nines <= most)
        .map(|nines| {
            let quantile = 1.0 - 10_f64.powf(-nines);
            (quantile, micros(histogram.value_at_quantile(quantile)))
        })
        .collect()
}

/// The median of the curves, as far as all of them reach.
fn curve_over(runs: &[&Run]) -> Vec<(f64, f64)> {
    let shortest = runs.iter().map(|run| run.curve.len()).min().unwrap_or_default();
    let at = |point: usize| {
        let points = || runs.iter().filter_map(move |run| run.curve.get(point));
        Some((points().next()?.0, Figure::of(points().map(|(_, us)| *us))?.median))
    };
    (0..shortest).filter_map(at).collect()
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

impl Latency {
    /// The usual quantiles; `None` when nothing was recorded.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
        })
    }
}

impl Latencies {
    fn of(runs: &[&Run]) -> Option<Self> {
        let over = |quantile: fn(&Latency) -> f64| {
            Figure::of(runs.iter().filter_map(|run| run.latency.as_ref().map(quantile)))
        };
        Some(Self {
            p50: over(|latency| latency.p50)?,
            p90: over(|latency| latency.p90)?,
            p99: over(|latency| latency.p99)?,
            p999: over(|latency| latency.p999)?,
            max: over(|latency| latency.max)?,
        })
    }
}

impl Figure {
    /// Median and ends of some numbers; `None` of none.
    pub(crate) fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.filter(|number| number.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max, rounds: sorted.len() })
    }

    /// How far the farthest round is from the median, as a share of it; one round tells nothing of that.
    pub(crate) fn spread(&self) -> Option<f64> {
        let farthest = (self.max - self.median).max(self.median - self.min);
        (self.rounds > 1 && self.median != 0.0).then(|| farthest / self.median.abs())
    }

    /// Returns `true` if every round of this one is below every round of the other; with two rounds, chance does this
    /// too often.
    pub(crate) fn is_clearly_below(&self, other: &Self) -> bool {
        self.rounds > 2 && other.rounds > 2 && self.max < other.min
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::LeftOut;

    fn run(round: usize, cpu_ns: f64, marks: &[Mark]) -> Run {
        Run { round, cpu_ns: Some(cpu_ns), marks: marks.to_vec(), ..Run::default() }
    }

    fn row(runs: Vec<Run>) -> Row {
        Row { contestant: "x".into(), summary: None, error: None, runs }
    }

    /// One row per list of CPU times, a round each.
    fn rows<const N: usize>(lists: [&[f64]; N]) -> [Row; N] {
        let mut rows = lists
            .map(|list| row(list.iter().enumerate().map(|(round, cpu)| run(round, *cpu, &[])).collect()));
        summarize(&mut rows);
        rows
    }

    fn summary_of(row: &Row) -> &Summary {
        row.summary.as_ref().unwrap()
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let figure = Figure::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!((figure.median, figure.min, figure.max, figure.rounds), (2.5, 1.0, 4.0, 4));
        assert_eq!(Figure::of([f64::NAN].into_iter()), None);
    }

    #[test]
    fn the_spread_reaches_the_farthest_round_and_one_round_has_none() {
        let spread = |numbers: &[f64]| Figure::of(numbers.iter().copied()).unwrap().spread();
        assert_eq!(spread(&[90.0, 100.0, 130.0]), Some(0.3));
        assert_eq!(spread(&[60.0, 100.0, 130.0]), Some(0.4));
        assert_eq!(spread(&[100.0]), None);
    }

    #[test]
    fn a_ratio_is_the_quotient_of_the_two_figures_beside_it() {
        // the quotients within the rounds are 3, 1 and 1.2, whose median would contradict 300 beside 100
        let [base, other] = rows([&[100.0, 300.0, 80.0], &[300.0, 300.0, 96.0]]);
        let (base, other) = (summary_of(&base), summary_of(&other));
        assert_eq!(other.ratio.unwrap().median, other.cpu_ns.unwrap().median / base.cpu_ns.unwrap().median);
        assert_eq!(other.ratio.unwrap().median, 3.0);
        assert_eq!((other.ratio.unwrap().min, other.ratio.unwrap().max), (1.0, 3.0));
        assert_eq!(base.ratio.unwrap(), Figure { median: 1.0, min: 1.0, max: 1.0, rounds: 3 });
    }

    #[test]
    fn a_ratio_lies_between_the_quotients_of_its_rounds() {
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            1.0 + (seed >> 33) as f64 % 1000.0
        };
        for rounds in [1, 2, 3, 4, 5, 8] {
            for _ in 0..200 {
                let base: Vec<f64> = (0..rounds).map(|_| next()).collect();
                let other: Vec<f64> = (0..rounds).map(|_| next()).collect();
                let [_, other] = rows([&base, &other]);
                let ratio = summary_of(&other).ratio.unwrap();
                let rounding = 1e-9 * ratio.median;
                assert!(
                    ratio.min <= ratio.median + rounding && ratio.median <= ratio.max + rounding,
                    "{ratio:?}"
                );
            }
        }
    }

    #[test]
    fn drift_that_both_share_does_not_widen_the_spread_of_a_ratio() {
        let [_, other] = rows([&[100.0, 200.0, 400.0], &[150.0, 300.0, 600.0]]);
        let ratio = summary_of(&other).ratio.unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (1.5, 1.5, 1.5));
        assert_eq!(summary_of(&other).cpu_ns.unwrap().spread(), Some(1.0));
    }

    #[test]
    fn a_noisy_round_counts_as_every_other_and_is_marked_where_it_is_common() {
        let mut rows = [row(vec![run(0, 1.0, &[]), run(1, 9.0, &[Mark::Noisy]), run(2, 2.0, &[])])];
        summarize(&mut rows);
        let summary = summary_of(&rows[0]);
        assert_eq!((summary.rounds, summary.cpu_ns.unwrap().max, summary.marks.len()), (3, 9.0, 0));
        let mut rows = [row(vec![run(0, 1.0, &[]), run(1, 9.0, &[Mark::Noisy])])];
        summarize(&mut rows);
        assert_eq!(summary_of(&rows[0]).marks, [Mark::Noisy]);
    }

    #[test]
    fn what_was_left_out_counts_nowhere() {
        let left_out = |why| Run { left_out: Some(why), ..run(0, 50.0, &[Mark::Noisy]) };
        let base = row(vec![left_out(LeftOut::Disturbed), run(0, 100.0, &[])]);
        let other = row(vec![run(0, 110.0, &[]), left_out(LeftOut::Incomplete)]);
        let mut rows = [base, other];
        summarize(&mut rows);
        assert_eq!(summary_of(&rows[0]).cpu_ns.unwrap().min, 100.0);
        assert_eq!(summary_of(&rows[1]).ratio.unwrap().median, 1.1);
        assert_eq!(summary_of(&rows[1]).rounds, 1);
    }

    #[test]
    fn a_failed_round_is_told_and_has_no_ratio() {
        let failed = Run { round: 1, error: Some("wrong".into()), ..Run::default() };
        let base = row(vec![run(0, 1.0, &[]), run(1, 1.0, &[])]);
        let mut rows = [base, row(vec![run(0, 1.0, &[]), failed])];
        summarize(&mut rows);
        assert_eq!(rows[1].error.as_deref(), Some("wrong"));
        let summary = summary_of(&rows[1]);
        assert_eq!((summary.rounds, summary.ratio), (1, None));
        rows.reverse();
        summarize(&mut rows);
        assert_eq!(summary_of(&rows[1]).ratio, None, "nor is there one to a server that has failed");
    }

    #[test]
    fn only_what_no_round_contradicts_is_clear() {
        let figure = |numbers: &[f64]| Figure::of(numbers.iter().copied()).unwrap();
        assert!(figure(&[1.0, 1.1, 1.0]).is_clearly_below(&figure(&[1.2, 1.3, 1.2])));
        assert!(!figure(&[1.0, 1.25, 1.0]).is_clearly_below(&figure(&[1.2, 1.3, 1.2])));
        assert!(!figure(&[1.0, 1.1]).is_clearly_below(&figure(&[1.2, 1.3, 1.2])), "too few rounds");
    }

    #[test]
    fn the_curve_ends_where_the_messages_do() {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=100).for_each(|value| histogram.record(value * 1000).unwrap());
        let curve = curve(&histogram);
        assert_eq!(curve.first().unwrap().0, 0.0);
        assert!((curve.last().unwrap().0 - 0.99).abs() < 1e-9);
    }

    #[test]
    fn the_curve_over_the_rounds_is_their_median_as_far_as_all_reach() {
        let with = |curve: &[(f64, f64)]| Run { curve: curve.to_vec(), ..Run::default() };
        let runs = [
            with(&[(0.0, 1.0), (0.5, 5.0)]),
            with(&[(0.0, 2.0), (0.5, 9.0), (0.9, 9.0)]),
            with(&[(0.0, 3.0), (0.5, 6.0)]),
        ];
        assert_eq!(curve_over(&runs.each_ref()), [(0.0, 2.0), (0.5, 6.0)]);
    }
}

use hdrhistogram::Histogram;

use super::results::{Figure, Latency, Mark, Row, Run, Summary};

/// Quantiles at which the latency curve is drawn: even steps on the axis `log10(1 / (1 - q))`.
const CURVE_STEPS: u32 = 40;
/// The curve ends at 99.99 %.
const CURVE_NINES: f64 = 4.0;

/// Fills in the summaries of one case. The first row is what the others are compared with.
pub(crate) fn summarize(rows: &mut [Row]) {
    let base = rows.first().map(|row| row.runs.as_slice()).unwrap_or_default();
    let summaries: Vec<Option<Summary>> = rows.iter().map(|row| summary(&row.runs, base)).collect();
    for (row, summary) in rows.iter_mut().zip(summaries) {
        row.error = row.runs.iter().find_map(|run| run.error.clone());
        row.summary = summary;
    }
}

fn summary(runs: &[Run], base: &[Run]) -> Option<Summary> {
    let good: Vec<&Run> = runs.iter().filter(|run| run.error.is_none()).collect();
    let quiet: Vec<&Run> = good.iter().copied().filter(|run| run.is_quiet()).collect();
    let runs = if quiet.is_empty() { good } else { quiet };
    if runs.is_empty() {
        return None;
    }
    let over = |figure: fn(&Run) -> Option<f64>| Figure::of(runs.iter().filter_map(|run| figure(run)));
    let merged = merged(&runs);
    let mut marks = common_marks(&runs);
    let (ratio, base_was_noisy) = ratios(&runs, base);
    if base_was_noisy && !marks.contains(&Mark::Noisy) {
        marks.push(Mark::NoisyBase);
    }
    Some(Summary {
        rounds: runs.len(),
        per_second: over(|run| run.per_second),
        cpu_ns: over(|run| run.cpu_ns),
        ratio,
        server_cpus: over(|run| run.server_cpus),
        latency: merged.as_ref().and_then(Latency::of),
        latency_curve: merged.as_ref().map(curve).unwrap_or_default(),
        context_switches: over(|run| run.context_switches),
        memory_bytes: over(|run| run.memory_bytes),
        bytes_per_connection: over(|run| run.bytes_per_connection),
        bytes_after_close: over(|run| run.bytes_after_close),
        generator_busy: over(|run| run.generator_busy),
        foreign_cpus: over(|run| run.foreign_cpus),
        marks,
    })
}

/// A mark stands when at least half of the rounds that count have it.
fn common_marks(runs: &[&Run]) -> Vec<Mark> {
    let has = |mark: &Mark| runs.iter().filter(|run| run.marks.contains(mark)).count();
    let all = [Mark::GeneratorBound, Mark::Noisy, Mark::Overloaded];
    all.into_iter().filter(|mark| has(mark) * 2 >= runs.len()).collect()
}

/// Against the base where it was quiet too, since a noisy round of the base would flatter everybody else; where it never
/// was, against all of it, which the answer tells.
fn ratios(runs: &[&Run], base: &[Run]) -> (Option<Figure>, bool) {
    let against = |wanted: fn(&Run) -> bool| {
        let base: Vec<&Run> = base.iter().filter(|run| run.error.is_none() && wanted(run)).collect();
        Figure::of(runs.iter().filter_map(|run| ratio(run, &base)))
    };
    match against(Run::is_quiet) {
        Some(figure) => (Some(figure), false),
        None => {
            let figure = against(|_| true);
            (figure, figure.is_some())
        }
    }
}

/// What a run cost against the base in the same round: drift of the machine over minutes cancels out.
fn ratio(run: &Run, base: &[&Run]) -> Option<f64> {
    let base = base.iter().find(|base| base.round == run.round)?;
    let (own, other) = match (run.bytes_per_connection, base.bytes_per_connection) {
        (Some(own), Some(other)) => (own, other),
        _ => (run.cpu_ns?, base.cpu_ns?),
    };
    (other > 0.0).then(|| own / other)
}

fn merged(runs: &[&Run]) -> Option<Histogram<u64>> {
    let mut histograms = runs.iter().filter_map(|run| run.histogram.as_ref());
    let mut sum = histograms.next()?.clone();
    for histogram in histograms {
        // all were made with the same bounds, so that this can not fail
        let _ = sum.add(histogram);
    }
    Some(sum)
}

fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    // beyond the last message there is nothing to draw
    let nines = (histogram.len().max(10) as f64).log10().min(CURVE_NINES);
    (0..=CURVE_STEPS)
        .map(|step| {
            let quantile = 1.0 - 10_f64.powf(-nines * f64::from(step) / f64::from(CURVE_STEPS));
            (quantile, micros(histogram.value_at_quantile(quantile)))
        })
        .collect()
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

impl Run {
    /// Whether nobody else used the machine meanwhile.
    fn is_quiet(&self) -> bool {
        !self.marks.contains(&Mark::Noisy)
    }
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

impl Figure {
    /// Median and ends of some numbers; `None` of none.
    pub(crate) fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.filter(|number| number.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }

    /// Half the distance between the ends, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / 2.0 / self.median.abs() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: usize, cpu_ns: f64, marks: &[Mark]) -> Run {
        Run { round, cpu_ns: Some(cpu_ns), marks: marks.to_vec(), ..Run::default() }
    }

    fn row(runs: Vec<Run>) -> Row {
        Row { contestant: "x".into(), summary: None, error: None, runs }
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let figure = Figure::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!((figure.median, figure.min, figure.max), (2.5, 1.0, 4.0));
        assert_eq!(figure.spread(), 0.6);
        assert_eq!(Figure::of([f64::NAN].into_iter()), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let base = row(vec![run(0, 100.0, &[]), run(1, 200.0, &[]), run(2, 400.0, &[])]);
        let other = row(vec![run(0, 150.0, &[]), run(1, 300.0, &[]), run(2, 600.0, &[])]);
        let mut rows = [base, other];
        summarize(&mut rows);
        let ratio = rows[1].summary.as_ref().unwrap().ratio.unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (1.5, 1.5, 1.5));
    }

    #[test]
    fn a_noisy_round_of_the_base_is_no_measure_for_others() {
        let base = row(vec![run(0, 100.0, &[]), run(1, 300.0, &[Mark::Noisy])]);
        let other = row(vec![run(0, 110.0, &[]), run(1, 120.0, &[])]);
        let mut rows = [base, other];
        summarize(&mut rows);
        let summary = rows[1].summary.as_ref().unwrap();
        assert_eq!((summary.ratio.unwrap().max, summary.marks.len()), (1.1, 0));
    }

    #[test]
    fn a_ratio_to_a_base_that_was_never_quiet_is_marked() {
        let base = || row(vec![run(0, 100.0, &[Mark::Noisy]), run(1, 100.0, &[])]);
        let noisy_where_the_base_was_not = row(vec![run(0, 110.0, &[]), run(1, 120.0, &[Mark::Noisy])]);
        let mut rows = [base(), noisy_where_the_base_was_not, row(vec![run(0, 120.0, &[Mark::Noisy])])];
        summarize(&mut rows);
        let summary = |at: usize| rows[at].summary.clone().unwrap();
        assert_eq!(summary(0).marks, []);
        assert_eq!((summary(1).ratio.unwrap().max, summary(1).marks), (1.1, vec![Mark::NoisyBase]));
        assert_eq!(summary(2).marks, [Mark::Noisy], "which says it already");
    }

    #[test]
    fn noisy_rounds_count_only_when_there_are_no_others() {
        let mut rows = [row(vec![run(0, 1.0, &[]), run(1, 9.0, &[Mark::Noisy])])];
        summarize(&mut rows);
        let summary = rows[0].summary.clone().unwrap();
        assert_eq!((summary.cpu_ns.unwrap().max, summary.marks.len(), summary.rounds), (1.0, 0, 1));
        let mut rows = [row(vec![run(0, 1.0, &[Mark::Noisy]), run(1, 9.0, &[Mark::Noisy])])];
        summarize(&mut rows);
        let summary = rows[0].summary.clone().unwrap();
        assert_eq!((summary.cpu_ns.unwrap().median, summary.marks), (5.0, vec![Mark::Noisy]));
    }

    #[test]
    fn a_failed_round_is_told_and_left_out() {
        let failed = Run { round: 1, error: Some("wrong".into()), ..Run::default() };
        let mut rows = [row(vec![run(0, 1.0, &[]), failed])];
        summarize(&mut rows);
        assert_eq!(rows[0].error.as_deref(), Some("wrong"));
        assert_eq!(rows[0].summary.as_ref().unwrap().rounds, 1);
    }

    #[test]
    fn the_curve_ends_where_the_messages_do() {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=100).for_each(|value| histogram.record(value * 1000).unwrap());
        let curve = curve(&histogram);
        assert_eq!(curve.first().unwrap().0, 0.0);
        assert!((curve.last().unwrap().0 - 0.99).abs() < 1e-9);
    }
}

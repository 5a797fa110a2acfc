use std::collections::HashSet;

use super::*;

/// The numbers of two shards that have published `own`.
fn of_two_shards(own: &Counters) -> (Metrics, [SharedCounters; 2]) {
    let crowd = Arc::<Crowd>::default();
    let shards = [(); 2].map(|()| SharedCounters::new(crowd.clone()));
    let mut metrics = Metrics::default();
    for shard in &shards {
        let mut own = own.clone();
        shard.publish(&mut own);
        shard.publish_time(&mut own);
        shard.add_to(&mut metrics);
    }
    metrics.sessions_peak = crowd.peak();
    metrics.shards = 2;
    (metrics, shards)
}

#[test]
fn a_snapshot_is_the_sum_of_what_the_shards_published() {
    let mut own = Counters { bytes_in: 5, sessions: 1, ..Counters::default() };
    own.count_close(CloseKind::Idle);
    own.count_refusal(RefusalCause::Strategy);
    own.panics += 3;
    own.count_busy(2_000_000);
    own.count_busy(1_000_000);
    let (metrics, _) = of_two_shards(&own);
    assert_eq!((metrics.bytes_in, metrics.sessions, metrics.panics), (10, 2, 6));
    assert_eq!((metrics.closed(CloseKind::Idle), metrics.closed_total()), (2, 2));
    assert_eq!((metrics.refused(RefusalCause::Strategy), metrics.refused_total()), (2, 2));
    assert_eq!((metrics.busy, metrics.slowest_turn), (Duration::from_millis(6), Duration::from_millis(2)));
    let shown = format!("{metrics:?}");
    assert!(shown.contains("closed: {Idle: 2}") && shown.contains("refused: {Strategy: 2}"), "{shown}");
}

#[test]
fn what_changes_seldom_is_published_when_it_has_changed_and_not_otherwise() {
    let (shared, mut own) = (SharedCounters::default(), Counters::default());
    let published = |shared: &SharedCounters| {
        let mut metrics = Metrics::default();
        shared.add_to(&mut metrics);
        metrics.panics
    };
    own.panics += 1;
    shared.publish(&mut own);
    assert_eq!((published(&shared), own.is_changed), (1, false));
    assert_eq!(own.panics, 1, "a look is no change");
    assert!(!own.is_changed);
    own.panics += 1;
    shared.publish_time(&mut own);
    assert_eq!(published(&shared), 2);
}

#[test]
fn the_peak_is_what_all_shards_had_at_once_and_stays_when_they_end() {
    let (mut metrics, shards) = of_two_shards(&Counters { sessions: 3, ..Counters::default() });
    assert_eq!((metrics.sessions, metrics.sessions_peak), (6, 6));
    let crowd = shards[0].crowd.clone();
    shards[0].publish(&mut Counters { sessions: 1, ..Counters::default() });
    shards[1].publish(&mut Counters { sessions: 4, ..Counters::default() });
    assert_eq!(crowd.peak(), 6, "no more than five at once since");
    metrics = Metrics::default();
    shards[1].retire_to(&mut metrics);
    shards[0].publish(&mut Counters { sessions: 6, ..Counters::default() });
    assert_eq!((metrics.sessions, crowd.peak()), (0, 6), "those of a shard that has ended are gone");
    shards[0].publish(&mut Counters { sessions: 7, ..Counters::default() });
    assert_eq!(crowd.peak(), 7);
}

#[test]
fn rates_are_what_was_counted_per_second_and_how_busy_the_shards_were() {
    let mut own = Counters { bytes_in: 1_000, timers: 5, ..Counters::default() };
    own.count_busy(1_000_000_000);
    let (mut before, _) = of_two_shards(&own);
    own.bytes_in += 500;
    own.timers = 3;
    own.count_close(CloseKind::Local);
    own.count_busy(250_000_000);
    let (mut after, _) = of_two_shards(&own);
    (before.uptime, after.uptime) = (Duration::from_secs(10), Duration::from_secs(12));
    let rates = after.since(&before);
    assert_eq!(rates.elapsed(), Duration::from_secs(2));
    assert_eq!(rates.per_second(|metrics| metrics.bytes_in), 500.0);
    assert_eq!(rates.per_second(|metrics| metrics.closed(CloseKind::Local)), 1.0);
    assert_eq!(
        (rates.counted().bytes_in, rates.counted().timers, rates.counted().closed_total()),
        (1_000, 6, 2)
    );
    assert_eq!(rates.busy_share(), 0.125, "each of two shards was busy for a quarter of two seconds");
    let none = after.since(&after);
    assert_eq!((none.per_second(|metrics| metrics.bytes_in), none.busy_share()), (0.0, 0.0));
    let wrong_way = before.since(&after);
    assert_eq!((wrong_way.per_second(|metrics| metrics.bytes_in), wrong_way.busy_share()), (0.0, 0.0));
}

#[test]
fn samples_are_named_as_prometheus_wants_them() {
    let mut own = Counters { sessions: 1, ..Counters::default() };
    own.count_close(CloseKind::PeerClosed);
    let (metrics, _) = of_two_shards(&own);
    let samples: Vec<Sample> = metrics.samples().collect();
    let is_plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut names = HashSet::new();
    let mut last = "";
    for sample in &samples {
        assert!(is_plain(sample.name()) && sample.name().starts_with("framewire_"), "{sample:?}");
        assert_eq!(sample.name().ends_with("_total"), sample.kind() == SampleKind::Counter, "{sample:?}");
        assert!(sample.labels().iter().all(|(name, value)| is_plain(name) && is_plain(value)), "{sample:?}");
        let help = sample.help();
        assert!(help.ends_with('.') && !help.contains(['[', '\n']) && !help.contains("  "), "{sample:?}");
        assert!(last == sample.name() || names.insert(sample.name()), "{sample:?} is apart from its family");
        last = sample.name();
    }
    let lines: Vec<String> = samples.iter().map(Sample::to_string).collect();
    assert!(lines.contains(&"framewire_sessions 2".to_owned()), "{lines:?}");
    assert!(
        lines.contains(&"framewire_closed_sessions_total{reason=\"peer_closed\"} 2".to_owned()),
        "{lines:?}"
    );
}

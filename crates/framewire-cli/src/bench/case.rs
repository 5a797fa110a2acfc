use serde::Serialize;

use super::args::{BenchArgs, LoadKind};
use super::load::Traffic;
use super::text::grouped;

/// Descriptors for everything but the connections: standard streams, polls, pipes, the idle case's first connections.
pub(crate) const SPARE: u64 = 100;

/// One cell of the matrix: a load that every contestant gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Case {
    pub kind: Kind,
    /// Connections that send; in a broadcast those that receive, one of which sends.
    pub connections: usize,
    /// Connections that stay silent.
    pub silent: usize,
    /// Payload bytes.
    pub size: usize,
    /// Messages under way per connection (in a broadcast, of the one that sends); 1 where that is not a setting.
    pub pipeline: usize,
    /// Open loop: messages per second.
    pub rate: Option<f64>,
}

/// What a case measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Echo,
    Open,
    Active,
    Churn,
    Broadcast,
    Idle,
}

impl Case {
    /// The matrix that the options ask for, in the order in which it is shown.
    pub(crate) fn matrix(args: &BenchArgs) -> Vec<Self> {
        let wants = |kind| args.load.is_empty() || args.load.contains(&kind);
        let mut cases = Vec::new();
        for size in args.sizes_or(64) {
            if wants(LoadKind::Echo) {
                cases.extend(echo_cases(args, size));
            }
            if wants(LoadKind::Open) {
                let connections = args.connections.iter().copied().max().unwrap_or(1);
                cases.extend(
                    args.rate
                        .iter()
                        .map(|&rate| Self { rate: Some(rate), ..Self::of(Kind::Open, connections, size) }),
                );
            }
            let fewest = args.connections.iter().copied().min().unwrap_or(1);
            if wants(LoadKind::Active) {
                let among = |&silent| Self { silent, ..Self::of(Kind::Active, fewest, size) };
                cases.extend(args.idle.iter().map(among));
            }
            if wants(LoadKind::Churn) {
                cases.push(Self::of(Kind::Churn, fewest, size));
            }
        }
        if wants(LoadKind::Broadcast) {
            cases.extend(args.sizes_or(128).into_iter().flat_map(|size| broadcast_cases(args, size)));
        }
        if wants(LoadKind::Idle) {
            let size = args.sizes.first().copied().unwrap_or(64);
            cases.extend(args.idle.iter().map(|&silent| Self { silent, ..Self::of(Kind::Idle, 0, size) }));
        }
        cases
    }

    fn of(kind: Kind, connections: usize, size: usize) -> Self {
        Self { kind, connections, silent: 0, size, pipeline: 1, rate: None }
    }

    /// Connections in all.
    pub(crate) fn total(&self) -> usize {
        self.connections + self.silent
    }

    /// Descriptors that a process needs which has so many for each connection.
    pub(crate) fn descriptors(&self, each: u64) -> u64 {
        self.total() as u64 * each + SPARE
    }

    /// The same case with at most `most` connections in all; those that send stay as long as possible.
    pub(crate) fn fitted(&self, most: usize) -> Self {
        let connections = self.connections.min(most);
        Self { connections, silent: self.silent.min(most - connections), ..self.clone() }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        match self.kind {
            Kind::Echo | Kind::Active => Traffic::Closed { pipeline: self.pipeline },
            Kind::Open => Traffic::Open { rate: self.rate.unwrap_or(1.0) },
            Kind::Churn => Traffic::Churn,
            Kind::Broadcast => Traffic::Publish { in_flight: self.pipeline },
            Kind::Idle => Traffic::Idle,
        }
    }

    /// What is counted: the unit of throughput.
    pub(crate) fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Churn => "connections",
            Kind::Broadcast => "deliveries",
            Kind::Echo | Kind::Open | Kind::Active | Kind::Idle => "messages",
        }
    }

    /// A heading.
    pub(crate) fn title(&self) -> String {
        let connections = grouped(self.connections as f64);
        let size = bytes(self.size);
        match self.kind {
            Kind::Echo => format!("Echo: {connections} connections, {size}, pipeline {}", self.pipeline),
            Kind::Open => format!(
                "Open loop: {} messages/s over {connections} connections, {size}",
                grouped(self.rate.unwrap_or_default())
            ),
            Kind::Active => {
                format!(
                    "Active among idle: {connections} of {} connections, {size}",
                    grouped(self.total() as f64)
                )
            }
            Kind::Churn => format!("Churn: {connections} at a time, connect, {size}, close"),
            Kind::Broadcast => {
                format!(
                    "Broadcast: one publisher, {connections} subscribers, {size}, {} in flight",
                    self.pipeline
                )
            }
            Kind::Idle => format!("Idle: {} silent connections", grouped(self.silent as f64)),
        }
    }

    /// One sentence: what the case shows, and what it does not.
    pub(crate) fn says(&self) -> &'static str {
        match (self.kind, self.pipeline) {
            (Kind::Echo, 1) => {
                "Shows what one request and its reply cost when each waits for the other; most of it is the kernel's \
                 send and receive. Does not show latency under a steady rate: a slow server simply gets fewer messages."
            }
            (Kind::Echo, _) => {
                "Shows how well a server gathers: replies to one batch of input can leave in one write. Does not show \
                 what clients that wait for each reply get."
            }
            (Kind::Open, _) => {
                "Shows latency and CPU at a rate that does not depend on the server, from the moment each message was \
                 due: a stall is charged to every message it delays. Does not show the highest rate a server can take."
            }
            (Kind::Active, _) => {
                "Shows whether connections that do nothing cost those that do. Does not show a network: on loopback \
                 an idle connection is only memory."
            }
            (Kind::Churn, _) => {
                "Shows the cost of taking, serving once and closing a connection, mostly the kernel's. Does not show \
                 a handshake over distance, or TLS."
            }
            (Kind::Broadcast, _) => {
                "Shows what it costs to pass one message on to each of many subscribers, and how late it is at the last. \
                 Does not show slow subscribers, nor topics: everybody gets everything, at once."
            }
            (Kind::Idle, _) => {
                "Shows the server process's own memory for a connection that has been answered once and is silent \
                 since. Does not show the kernel's memory: a socket each, the same for all, and a stack for each thread."
            }
        }
    }
}

fn echo_cases(args: &BenchArgs, size: usize) -> Vec<Case> {
    let of_depth = |pipeline| {
        let case = move |&connections| Case { pipeline, ..Case::of(Kind::Echo, connections, size) };
        args.connections.iter().map(case)
    };
    args.pipeline.iter().flat_map(|&pipeline| of_depth(pipeline)).collect()
}

fn broadcast_cases(args: &BenchArgs, size: usize) -> Vec<Case> {
    let of_depth = |pipeline| {
        let case = move |&subscribers| Case { pipeline, ..Case::of(Kind::Broadcast, subscribers, size) };
        args.subscribers.iter().map(case)
    };
    args.in_flight.iter().flat_map(|&pipeline| of_depth(pipeline)).collect()
}

fn bytes(size: usize) -> String {
    match size {
        0 => "empty messages".into(),
        size if size % 1024 == 0 => format!("{} KiB", grouped((size / 1024) as f64)),
        size => format!("{} B", grouped(size as f64)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn matrix(line: &str) -> Vec<Case> {
        Case::matrix(&Line::parse_from(line.split_whitespace()).bench)
    }

    #[test]
    fn the_matrix_is_the_product_of_what_applies_to_each_kind() {
        let cases =
            matrix("bench --load echo,open --connections 1,5 --sizes 8,1024 --pipeline 1,4 --rate 10,20");
        assert_eq!(cases.iter().filter(|case| case.kind == Kind::Echo).count(), 2 * 2 * 2);
        let open: Vec<_> = cases.iter().filter(|case| case.kind == Kind::Open).collect();
        assert_eq!(open.len(), 2 * 2);
        assert!(open.iter().all(|case| case.connections == 5 && case.pipeline == 1));
    }

    #[test]
    fn without_options_every_kind_is_there() {
        let cases = matrix("bench");
        for kind in [Kind::Echo, Kind::Open, Kind::Active, Kind::Churn, Kind::Broadcast, Kind::Idle] {
            assert!(cases.iter().any(|case| case.kind == kind), "{kind:?}");
        }
    }

    #[test]
    fn a_broadcast_has_sizes_of_its_own_unless_they_are_given() {
        let cases = matrix("bench --load broadcast --subscribers 5,50 --in-flight 1,8");
        let of = |case: &Case| (case.connections, case.pipeline, case.size);
        assert_eq!(
            cases.iter().map(of).collect::<Vec<_>>(),
            [(5, 1, 128), (50, 1, 128), (5, 8, 128), (50, 8, 128)]
        );
        assert_eq!(cases[3].title(), "Broadcast: one publisher, 50 subscribers, 128 B, 8 in flight");
        let cases = matrix("bench --load broadcast,churn --sizes 9");
        assert!(cases.iter().all(|case| case.size == 9));
    }

    #[test]
    fn fitting_takes_silent_connections_first() {
        let case = Case { silent: 90, ..Case::of(Kind::Active, 10, 8) };
        assert_eq!((case.fitted(50).connections, case.fitted(50).silent), (10, 40));
        assert_eq!((case.fitted(4).connections, case.fitted(4).silent), (4, 0));
        assert_eq!(case.fitted(1000), case);
    }

    #[test]
    fn titles_say_sizes_as_people_do() {
        assert_eq!(Case::of(Kind::Echo, 1000, 2048).title(), "Echo: 1,000 connections, 2 KiB, pipeline 1");
    }
}

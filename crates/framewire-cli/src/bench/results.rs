//! What the benchmark found, as it is written to JSON. `schema.json` describes it; a change here is a change there.

use serde::Serialize;

use super::case::Case;

/// Raised with every change that could break a reader.
pub(crate) const FORMAT: u32 = 2;

/// The JSON schema of [`Results`].
pub(crate) const SCHEMA: &str = include_str!("schema.json");

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub format: u32,
    /// Every contestant replied correctly to every message of every run.
    pub ok: bool,
    /// It was interrupted: some rounds, or whole loads, are missing.
    pub interrupted: bool,
    pub environment: Environment,
    pub settings: Settings,
    pub contestants: Vec<ContestantInfo>,
    pub cases: Vec<CaseResult>,
}

/// Where and when; enough to repeat it.
#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    /// Seconds since 1970.
    pub started: u64,
    pub seconds: f64,
    pub command: Vec<String>,
    pub framewire: String,
    /// Built with optimisation; without it no figure means anything.
    pub optimized: bool,
    pub os: String,
    pub kernel: Option<String>,
    pub architecture: String,
    pub cpu: Option<String>,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub descriptor_limit: Option<u64>,
    /// Versions of what was compared, by name.
    pub versions: Vec<(String, String)>,
}

/// How it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub duration_seconds: f64,
    pub warm_up_seconds: f64,
    pub repeats: usize,
    pub server_cpus: String,
    pub load_cpus: String,
    pub load_threads: usize,
    /// What was changed to fit the machine, or could not be done on it; for a person.
    pub notes: Vec<String>,
}

/// A server that took part, or did not.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ContestantInfo {
    pub name: String,
    pub about: String,
    /// Why it did not take part.
    pub skipped: Option<String>,
}

/// One case with all of its contestants.
#[derive(Debug, Serialize)]
pub(crate) struct CaseResult {
    pub title: String,
    pub says: String,
    pub unit: String,
    pub case: Case,
    pub rows: Vec<Row>,
}

/// One contestant in one case.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub contestant: String,
    /// Over the rounds; `None` when no run came to its end.
    pub summary: Option<Summary>,
    /// The first failure; such a row makes `ok` false.
    pub error: Option<String>,
    pub runs: Vec<Run>,
}

/// One run. A figure is `None` where it does not apply, or the system does not tell.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Run {
    pub round: usize,
    pub error: Option<String>,
    /// Why it counts for nothing, though it came to its end.
    pub left_out: Option<LeftOut>,
    /// Messages (churn: connections) verified in the window.
    pub messages: u64,
    pub per_second: Option<f64>,
    /// CPU time of the server process, all threads, per message.
    pub cpu_ns: Option<f64>,
    /// CPUs that the server used on average.
    pub server_cpus: Option<f64>,
    pub latency: Option<Latency>,
    pub context_switches: Option<f64>,
    /// Resident memory of the server at the end of the window (PSS).
    pub memory_bytes: Option<f64>,
    /// Idle: growth of that memory per connection, after one message on each.
    pub bytes_per_connection: Option<f64>,
    /// Idle: what of it is left when all have closed.
    pub bytes_after_close: Option<f64>,
    /// Share of its cores that the load generator used.
    pub generator_busy: Option<f64>,
    /// CPUs that all other processes used meanwhile, stolen time included.
    pub foreign_cpus: Option<f64>,
    pub marks: Vec<Mark>,
    /// Latency at each of a row of quantiles: `(quantile, µs)`. Not part of the JSON, which has the curve over all
    /// rounds.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

impl Run {
    /// Returns `true` if its figures count.
    pub(crate) fn counts(&self) -> bool {
        self.error.is_none() && self.left_out.is_none()
    }

    /// Returns `true` if other processes used the machine meanwhile.
    pub(crate) fn is_noisy(&self) -> bool {
        self.marks.contains(&Mark::Noisy)
    }
}

/// Why a run that came to its end counts for nothing. It is never its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LeftOut {
    /// Other processes used the machine, more than in the other of two runs one after the other.
    Disturbed,
    /// The benchmark was interrupted before the other contestants had run in the same round.
    Incomplete,
}

/// A reason to doubt a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mark {
    /// The load generator was the bottleneck: throughput and latency are its own. CPU per message still counts.
    GeneratorBound,
    /// Other processes used the machine.
    Noisy,
    /// The server did not keep up with the rate.
    Overloaded,
}

impl Mark {
    /// The sign in the table.
    pub(crate) fn sign(self) -> char {
        match self {
            Self::GeneratorBound => 'g',
            Self::Noisy => '~',
            Self::Overloaded => '!',
        }
    }

    pub(crate) fn explained(self) -> &'static str {
        match self {
            Self::GeneratorBound => {
                "the load generator was the bottleneck: throughput and latency are its own"
            }
            Self::Noisy => "other processes used the machine in half of the rounds or more",
            Self::Overloaded => "the server did not keep up with the rate",
        }
    }
}

/// Microseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// A figure over the rounds: their median, their ends and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

/// What the rounds that count say of one contestant in one case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub rounds: usize,
    pub per_second: Option<Figure>,
    pub cpu_ns: Option<Figure>,
    /// The median of CPU per message (idle: bytes per connection) over that of the first contestant; its ends are those
    /// of the same quotient within each round.
    pub ratio: Option<Figure>,
    pub server_cpus: Option<Figure>,
    pub latency: Option<Latencies>,
    /// Microseconds at each of a row of quantiles, for the curve: `[quantile, µs]`.
    pub latency_curve: Vec<(f64, f64)>,
    pub context_switches: Option<Figure>,
    pub memory_bytes: Option<Figure>,
    pub bytes_per_connection: Option<Figure>,
    pub bytes_after_close: Option<Figure>,
    pub generator_busy: Option<Figure>,
    pub foreign_cpus: Option<Figure>,
    pub marks: Vec<Mark>,
}

/// The quantiles of each round, over the rounds; microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latencies {
    pub p50: Figure,
    pub p90: Figure,
    pub p99: Figure,
    pub p999: Figure,
    pub max: Figure,
}

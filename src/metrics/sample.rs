use std::{fmt, time::Duration};

/// One number with its name, for an exporter. See [`Metrics::samples`](crate::Metrics::samples).
///
/// It is displayed as a line of the text format of Prometheus:
/// `framewire_closed_sessions_total{reason="idle"} 7`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
    kind: SampleKind,
    help: &'static str,
    value: f64,
}

/// What kind of number a [`Sample`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SampleKind {
    /// It only rises, from 0 when the server is started.
    Counter,
    /// It rises and falls.
    Gauge,
}

impl Sample {
    pub(super) fn number(name: &'static str, kind: SampleKind, help: &'static str, value: u64) -> Self {
        Self { name, label: None, kind, help: help.trim_start(), value: value as f64 }
    }

    pub(super) fn seconds(name: &'static str, kind: SampleKind, help: &'static str, value: Duration) -> Self {
        Self { name, label: None, kind, help, value: value.as_secs_f64() }
    }

    pub(super) fn with_label(self, label: &'static str, value: &'static str) -> Self {
        Self { label: Some((label, value)), ..self }
    }

    /// Returns the name, in the characters `a`–`z` and `_`. Samples of one name come one after the other, and differ in
    /// their labels.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the labels, each a name and a value, of the same characters.
    #[must_use]
    pub fn labels(&self) -> &[(&'static str, &'static str)] {
        self.label.as_slice()
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> SampleKind {
        self.kind
    }

    /// Returns the value: a count, bytes or seconds, as the name tells. Counts beyond 2^53 are rounded.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Returns what it means, on one line.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some((label, value)) = self.label {
            write!(f, "{{{label}=\"{value}\"}}")?;
        }
        write!(f, " {}", self.value)
    }
}

impl SampleKind {
    pub(super) fn clear_gauge(self, value: &mut u64) {
        if self == Self::Gauge {
            *value = 0;
        }
    }

    pub(super) fn count_from(self, value: &mut u64, earlier: u64) {
        if self == Self::Counter {
            *value = value.saturating_sub(earlier);
        }
    }
}

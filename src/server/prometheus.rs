//! A server's numbers for Prometheus.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::ServerHandle;
use crate::metrics::{Sample, SampleKind};

/// Collects [`Metrics::samples`](crate::Metrics::samples), by their names, whenever the registry is encoded. With the
/// feature `prometheus`, which is of prometheus-client 0.26.
///
/// ```
/// use framewire::{Separator, Server, packet_fn};
/// use prometheus_client::{encoding::text, registry::Registry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::bind("127.0.0.1:0")?.framing(Separator::lines());
/// let mut registry = Registry::default();
/// registry.register_collector(Box::new(server.handle())); // before or after the start
/// let server = server.spawn(packet_fn(|session, line| Ok(session.send(line)?)))?;
///
/// let mut page = String::new();
/// text::encode(&mut page, &registry)?;
/// assert!(page.contains("# TYPE framewire_accepted_connections counter\n"), "{page}");
/// assert!(page.contains("\nframewire_accepted_connections_total 0"));
/// # Ok(())
/// # }
/// ```
///
/// Several servers of a process are told apart by a label each:
/// [`Registry::sub_registry_with_label`](prometheus_client::registry::Registry::sub_registry_with_label).
impl Collector for ServerHandle {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples: Vec<Sample> = self.metrics().samples().collect();
        samples.chunk_by(|a, b| a.name() == b.name()).try_for_each(|family| encode(family, &mut encoder))
    }
}

/// Encodes the samples of one name.
fn encode(family: &[Sample], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(first) = family.first() else { return Ok(()) };
    let kind = match first.kind() {
        SampleKind::Counter => MetricType::Counter,
        SampleKind::Gauge => MetricType::Gauge,
    };
    // The encoder adds the suffix of a counter.
    let name = first.name().strip_suffix("_total").unwrap_or(first.name());
    let mut metric = encoder.encode_descriptor(name, first.help(), None, kind)?;
    for sample in family {
        let labels = sample.labels();
        if labels.is_empty() {
            encode_value(sample, &mut metric)?;
        } else {
            encode_value(sample, &mut metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode_value(sample: &Sample, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match sample.kind() {
        SampleKind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&sample.value(), None),
        SampleKind::Gauge => metric.encode_gauge(&sample.value()),
    }
}

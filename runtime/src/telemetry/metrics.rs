//! The metrics, in the OpenMetrics text format. A scrape reads values from the parts themselves (the books,
//! the writer, the decode threads), so nothing is counted twice.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::telemetry::families::{self, FamilyKind};
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

/// Encodes everything at a scrape, or only the samples that name nothing of the operator's.
#[derive(Debug)]
struct Collector {
    handles: Arc<Handles>,
    public_only: bool,
}

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut encoder = Families { encoder, public_only: self.public_only };
        for family in families::all(&self.handles) {
            match family.kind {
                FamilyKind::Counter => encoder.counter(family.name, family.help, family.samples)?,
                FamilyKind::Gauge => encoder.gauge(family.name, family.help, family.samples)?,
            }
        }
        for (name, help, snapshot) in families::histograms(&self.handles) {
            let mut metric = encoder.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            metric.encode_histogram::<NoLabelSet>(snapshot.sum_s, snapshot.count, &snapshot.buckets, None)?;
        }
        let build = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        encoder.gauge(
            "tidegate_build_info",
            "The version of the gateway; the value is always 1",
            vec![Sample::new(build.to_vec(), 1.0)],
        )
    }
}

/// Writes families of samples.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
    public_only: bool,
}

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, samples: Vec<Sample>) -> Result<(), fmt::Error> {
        self.family((name, help, MetricType::Counter), samples, |value, metric| match whole(value) {
            Some(whole) => ConstCounter::new(whole.unsigned_abs()).encode(metric),
            None => ConstCounter::new(value).encode(metric),
        })
    }

    fn gauge(&mut self, name: &str, help: &str, samples: Vec<Sample>) -> Result<(), fmt::Error> {
        self.family((name, help, MetricType::Gauge), samples, |value, metric| match whole(value) {
            Some(whole) => ConstGauge::new(whole).encode(metric),
            None => ConstGauge::new(value).encode(metric),
        })
    }

    fn family(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        samples: Vec<Sample>,
        encode: impl Fn(f64, MetricEncoder) -> Result<(), fmt::Error>,
    ) -> Result<(), fmt::Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for sample in samples.into_iter().filter(|sample| !self.public_only || sample.is_public()) {
            let labels: Vec<(&str, String)> = sample.labels;
            encode(sample.value, metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A value as the integer that it is, so that it is written without a fraction.
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

/// The registries that `/metrics` encodes.
#[derive(Debug)]
pub struct Metrics {
    all: Registry,
    public: Registry,
}

/// The content type of what `Metrics::text` gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    pub fn new(handles: Arc<Handles>) -> Self {
        // A name that the operator gave is not for everybody.
        let gateway = Some(&handles.gateway).filter(|name| !name.is_empty());
        let label = gateway.map(|name| (Cow::from("gateway"), Cow::from(name.clone())));
        let registry = |public_only: bool| {
            let mut registry = Registry::with_labels(label.clone().filter(|_| !public_only).into_iter());
            registry.register_collector(Box::new(Collector { handles: handles.clone(), public_only }));
            registry
        };
        Self { all: registry(false), public: registry(true) }
    }

    /// The metrics that name no tenant, database or route, for callers without a token.
    pub fn public_text(&self) -> String {
        encoded(&self.public)
    }

    pub fn text(&self) -> String {
        encoded(&self.all)
    }
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("writing to a String cannot fail");
    text
}

//! The metrics, in the OpenMetrics text format. A scrape reads values from the parts themselves (the books,
//! the writer, the decode threads), so nothing is counted twice.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::core::books::{Account, NO_TENANT, OTHER_TENANTS, Outcome, TenantBooks};
use crate::core::reason::Reason;
use crate::limits::METRIC_TENANTS_MAX;
use crate::telemetry::budgets;
use crate::telemetry::families::{self, FamilyKind};
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

/// A metric of every tenant: name, help, and where it stands in the books.
type TenantMetric = (&'static str, &'static str, fn(&TenantBooks) -> u64);

/// Encodes everything at a scrape, or only the samples that name nothing of the operator's.
#[derive(Debug)]
struct Collector {
    handles: Arc<Handles>,
    public_only: bool,
}

/// The label of a tenant: its own once it was admitted, while there are not too many.
fn labels(accounts: &[Arc<Account>]) -> impl Iterator<Item = (&str, &Arc<Account>)> {
    let mut own = 0;
    accounts.iter().map(move |account| {
        let name = account.tenant().as_str();
        let label = if name == NO_TENANT {
            NO_TENANT
        } else if account.was_admitted() && own < METRIC_TENANTS_MAX {
            own += 1;
            name
        } else {
            OTHER_TENANTS
        };
        (label, account)
    })
}

/// The books of each label.
pub(crate) fn by_label(accounts: &[Arc<Account>]) -> BTreeMap<String, TenantBooks> {
    let mut sums: BTreeMap<String, TenantBooks> = BTreeMap::new();
    for (label, account) in labels(accounts) {
        let books = account.snapshot();
        let sum = sums.entry(label.to_owned()).or_default();
        sum.messages.received += books.messages.received;
        sum.messages.lines += books.messages.lines;
        sum.messages.empty += books.messages.empty;
        sum.messages.quarantined += books.messages.quarantined;
        sum.messages.dropped += books.messages.dropped;
        sum.messages.abandoned += books.messages.abandoned;
        sum.messages.parked += books.messages.parked;
        sum.messages.in_flight += books.messages.in_flight;
        sum.lines.spooled += books.lines.spooled;
        sum.lines.written += books.lines.written;
        sum.lines.refused += books.lines.refused;
        sum.lines.dropped += books.lines.dropped;
        sum.lines.damaged += books.lines.damaged;
        sum.lines.pending += books.lines.pending;
    }
    sums
}

/// Dropped messages by label of their tenant and by reason.
fn drops_by_label(accounts: &[Arc<Account>]) -> BTreeMap<(String, Reason), u64> {
    let mut sums = BTreeMap::new();
    for (label, account) in labels(accounts) {
        for (reason, count) in account.drops() {
            *sums.entry((label.to_owned(), reason)).or_default() += count;
        }
    }
    sums
}

/// POSTs by label of the tenants whose lines they carried, and by outcome.
fn writes_by_label(accounts: &[Arc<Account>]) -> BTreeMap<(String, &'static str), u64> {
    let mut sums = BTreeMap::new();
    for (label, account) in labels(accounts) {
        for (outcome, count) in account.writes() {
            *sums.entry((label.to_owned(), outcome)).or_default() += count;
        }
    }
    sums
}

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut encoder = Families { encoder, public_only: self.public_only };
        let accounts = self.handles.books.accounts();
        let books = by_label(&accounts);
        let tenant_counters: [TenantMetric; 4] = [
            ("tidegate_messages_received", "Messages received", |b| b.messages.received),
            ("tidegate_lines_spooled", "Lines stored in the spool", |b| b.lines.spooled),
            ("tidegate_lines_written", "Lines that the database accepted", |b| b.lines.written),
            ("tidegate_lines_refused", "Lines that the database refused", |b| b.lines.refused),
        ];
        for (name, help, value) in tenant_counters {
            let samples = books
                .iter()
                .map(|(tenant, books)| Sample::new(vec![("tenant", tenant.clone())], value(books) as f64))
                .collect();
            encoder.counter(name, help, samples)?;
        }
        let mut settled = Vec::new();
        for (tenant, books) in &books {
            let outcomes = Outcome::ALL
                .map(|outcome| {
                    let messages = match outcome {
                        Outcome::Lines => books.messages.lines,
                        Outcome::Empty => books.messages.empty,
                        Outcome::Quarantined => books.messages.quarantined,
                        Outcome::Dropped => books.messages.dropped,
                        Outcome::Parked => books.messages.parked,
                    };
                    (outcome.name(), messages)
                })
                .into_iter()
                .chain([("abandoned", books.messages.abandoned)]);
            for (outcome, messages) in outcomes {
                let labels = vec![("tenant", tenant.clone()), ("outcome", outcome.to_owned())];
                settled.push(Sample::new(labels, messages as f64));
            }
        }
        encoder.counter("tidegate_messages_settled", "Messages with a result, by outcome", settled)?;
        let dropped = drops_by_label(&accounts).into_iter().map(|((tenant, reason), count)| {
            let labels = vec![("tenant", tenant), ("reason", reason.code().to_owned())];
            Sample::new(labels, count as f64)
        });
        encoder.counter(
            "tidegate_messages_dropped",
            "Acknowledged messages that are kept nowhere, by reason",
            dropped.collect(),
        )?;
        let writes = writes_by_label(&accounts).into_iter().map(|((tenant, outcome), count)| {
            Sample::new(vec![("tenant", tenant), ("outcome", outcome.to_owned())], count as f64)
        });
        encoder.counter("tidegate_writes", "POSTs to databases, by outcome", writes.collect())?;
        let tenant_gauges: [TenantMetric; 3] = [
            (
                "tidegate_messages_parked",
                "Messages parked in the spool until the registry can be asked",
                |b| b.messages.parked,
            ),
            ("tidegate_messages_in_flight", "Messages received and without a result yet", |b| {
                b.messages.in_flight
            }),
            ("tidegate_lines_pending", "Lines in the spool that wait for their database", |b| {
                b.lines.pending
            }),
        ];
        for (name, help, value) in tenant_gauges {
            let samples = books
                .iter()
                .map(|(tenant, books)| Sample::new(vec![("tenant", tenant.clone())], value(books) as f64))
                .collect();
            encoder.gauge(name, help, samples)?;
        }
        let labels = books.keys().cloned().collect();
        encoder.gauge(
            "tidegate_budget_bytes",
            "Bytes of memory and disk that are kept, by tenant and kind, and the bound of each budget",
            budgets::samples(self.handles.tenants.budgets(), &labels),
        )?;
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

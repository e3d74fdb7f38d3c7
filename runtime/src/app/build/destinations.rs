//! The parts in which a message ends: quarantine, spool and writer.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::app::build::foundation::Foundation;
use crate::app::tenant_settings;
use crate::config::words::SpoolSync;
use crate::config::{Config, settings};
use crate::core::decoder_state::StateSnapshot;
use crate::limits;
use crate::pipeline::birth_requester::BirthRequester;
use crate::pipeline::refusal_publisher::RefusalPublisher;
use crate::quarantine::{Quarantine, StoredObserver};
use crate::source::broker::OutgoingPublish;
use crate::spool::{OpenedSpool, Spool};
use crate::telemetry::write_metrics::WriteMetrics;
use crate::writer::thread::{IdleDelay, WriterThread};
use crate::writer::{Writer, WriterParts, WriterSettings};

pub(super) struct Destinations {
    /// `None` without a broker, and if nobody wants answers.
    pub publisher: Option<Arc<RefusalPublisher>>,
    /// `None` if no topic template allows it.
    pub births: Option<Arc<BirthRequester>>,
    pub outgoing: Option<mpsc::Receiver<OutgoingPublish>>,
    pub quarantine: Quarantine,
    pub spool: Spool,
    /// The decoders' state as the spool had it.
    pub state: StateSnapshot,
    pub writer: Writer,
    pub writer_thread: WriterThread,
    pub writes: Arc<WriteMetrics>,
}

impl Destinations {
    /// Opens what is on disk, and starts to write what waits there.
    ///
    /// # Errors
    /// A folder cannot be read or written, or a thread cannot be started.
    pub async fn open(config: &Config, base: &Foundation) -> anyhow::Result<Self> {
        let (sender, outgoing) = mpsc::channel(limits::OUTGOING_QUEUED_MAX);
        let publisher = refusal_publisher(config, sender.clone());
        let births = birth_requester(config, sender);
        // Without a sender the session would wait for nothing.
        let outgoing = (publisher.is_some() || births.is_some()).then_some(outgoing);
        let quarantine = open_quarantine(config, base, publisher.as_ref())?;
        let opened = open_spool(config, base).await?;
        let writes = Arc::new(WriteMetrics::default());
        let idle_delay = Arc::<IdleDelay>::default();
        let writer_thread =
            WriterThread::start(idle_delay.clone()).context("the writer's thread cannot start")?;
        let refused_to = quarantine.clone();
        let parts = WriterParts {
            runtime: writer_thread.runtime.clone(),
            idle_delay,
            store: opened.lines(),
            refused_lines: Arc::new(move |lines| refused_to.store_lines(lines)),
            observer: writes.clone(),
            tenants: base.tenants.clone(),
        };
        let memory_bytes_max = base.plan.writer_bytes_max as usize;
        let writer = Writer::start(WriterSettings { memory_bytes_max, ..settings::writer(config)? }, parts)?;
        tenant_settings::apply(config, &settings::own_outputs(config)?, &base.tenants, &writer)?;
        let state = opened.state();
        let spool = opened.start(Arc::new(writer.clone()))?;
        Ok(Self { publisher, births, outgoing, quarantine, spool, state, writer, writer_thread, writes })
    }
}

/// The publisher of refusals; `None` without a broker, and if nobody wants answers.
fn refusal_publisher(
    config: &Config,
    outgoing: mpsc::Sender<OutgoingPublish>,
) -> Option<Arc<RefusalPublisher>> {
    let topic = settings::answer_topic(config).filter(|_| !config.mqtt.url.is_empty())?;
    Some(Arc::new(RefusalPublisher::new(topic, outgoing)))
}

/// The requester of births; `None` if no topic template allows it.
fn birth_requester(config: &Config, outgoing: mpsc::Sender<OutgoingPublish>) -> Option<Arc<BirthRequester>> {
    let intervals_s = config.topics.iter().map(|section| section.rebirth_interval_s);
    BirthRequester::new(settings::topics(config), intervals_s, outgoing).map(Arc::new)
}

fn open_quarantine(
    config: &Config,
    base: &Foundation,
    publisher: Option<&Arc<RefusalPublisher>>,
) -> anyhow::Result<Quarantine> {
    let dir = Path::new(&config.data_dir).join("quarantine");
    let observer = publisher.map(|publisher| publisher.clone() as Arc<dyn StoredObserver>);
    let (age_clock, disk_reserve) = (base.age_clock.clone(), base.disk_reserve.clone());
    let settings = settings::quarantine(config, age_clock, disk_reserve, Some(&base.tenants));
    Ok(Quarantine::open(&dir, settings, observer, base.tenants.books())?)
}

async fn open_spool(config: &Config, base: &Foundation) -> anyhow::Result<OpenedSpool> {
    let dir = Path::new(&config.data_dir).join("spool");
    let settings = settings::spool(config, base.devices.tag(), base.age_clock.clone());
    let (tenants, books) = (base.tenants.clone(), base.books.clone());
    let open = move || Spool::open(&dir, settings, Some(tenants), &books);
    let opened = tokio::task::spawn_blocking(open).await??;
    if config.spool.sync.is(SpoolSync::Never) {
        tracing::warn!(
            "spool.sync = \"never\": a power cut loses what was acknowledged; this is for benches"
        );
    }
    Ok(opened)
}

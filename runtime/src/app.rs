//! The whole flow, joined: sources, admission, decode, writer, quarantine. Everything else knows
//! the domain and nothing of the others.

pub mod signals;
pub mod guests;
pub mod tenant_settings;
pub(crate) mod housekeeping;
pub(crate) mod check;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::guests::GuestRoutes;
use crate::admin::status;
use crate::admission::registry::Registry;
use crate::admission::{Admission, registry_tasks};
use crate::app::housekeeping::{check_files, follow, reload, watchdog};
use crate::app::signals::{SignalRequest, Signals};
use crate::app::tenant_settings::TenantUpdater;
use crate::config::checks::files;
use crate::config::settings::registry::registry;
use crate::config::tenant_config::TenantConfig;
use crate::config::words::SpoolSync;
use crate::config::{Config, settings};
use crate::core::ack::in_flight::InFlight;
use crate::core::ack::window::ReceiveWindow;
use crate::core::books::Books;
use crate::core::device_hash::DeviceHasher;
use crate::core::receive_clock::ReceiveClock;
use crate::core::worker;
use crate::decode::DecodePool;
use crate::pipeline::egress::Egress;
use crate::pipeline::ingress::Ingress;
use crate::pipeline::refusal_publisher::RefusalPublisher;
use crate::pipeline::replay::Replays;
use crate::pipeline::unpark;
use crate::quarantine::Quarantine;
use crate::source::broker::Broker;
use crate::source::listener::Listener;
use crate::spool::Spool;
use crate::telemetry::gauges::{Handles, ListenerHandles, SourceHealth};
use crate::telemetry::write_metrics::WriteMetrics;
use crate::writer::thread::{IdleDelay, WriterThread};
use crate::writer::{Writer, WriterParts};
use crate::{admin, config, data_dir};

pub use crate::app::check::check;
pub use crate::app::housekeeping::LoadConfig;

/// Runs the gateway until it is told to stop. `load` reads the configuration again when it is told to.
///
/// # Errors
/// It cannot start: the data folder is taken, a file or folder is not good, an address is taken.
pub async fn run(config: &Config, load: Arc<LoadConfig>) -> anyhow::Result<()> {
    if let Some(fault) = files::faults(config).into_iter().next() {
        return Err(fault.into());
    }
    let mut signals = Signals::new()?;
    let data_dir = Path::new(&config.data_dir);
    let _lock = data_dir::lock(data_dir)?;

    // What holds for tenants is known before there are lines of theirs that could go anywhere.
    let registry = registry(config)?;
    let mut plan = TenantConfig::new(config);
    if let Some(table) = registry_tasks::first_tenants(&registry).await
        && plan.take_up(table)
    {
        plan.keep();
    }
    let current = plan.current().clone();
    let config = &*current.get();
    let own_outputs = settings::own_outputs(config)?;

    let devices = DeviceHasher::new(data_dir::device_seed(data_dir)?);

    // What a message meets last is made first.
    let books = Arc::new(Books::default());
    let table = settings::tenants(config, &books);
    let admission = &config.admission;
    let window =
        Arc::new(ReceiveWindow::new(admission.unsettled_messages_max, admission.unsettled_bytes_max));
    let activity = Arc::new(InFlight::default());
    let quarantine = Quarantine::open(&data_dir.join("quarantine"), settings::quarantine(config), &books)?;
    let writes = Arc::new(WriteMetrics::default());
    let spool_dir = data_dir.join("spool");
    let opened = {
        let (settings, books) = (settings::spool(config, devices.tag()), books.clone());
        tokio::task::spawn_blocking(move || Spool::open(&spool_dir, settings, &books)).await??
    };
    if config.spool.sync.is(SpoolSync::Never) {
        tracing::warn!(
            "spool.sync = \"never\": a power cut loses what was acknowledged; this is for benches"
        );
    }
    let idle_delay = Arc::<IdleDelay>::default();
    let writer_thread = WriterThread::start(idle_delay.clone())?;
    let writer = Writer::start(
        settings::writer(config)?,
        WriterParts {
            runtime: writer_thread.runtime.clone(),
            idle_delay,
            store: opened.lines(),
            refused_lines: {
                let quarantine = quarantine.clone();
                Arc::new(move |lines| quarantine.store_lines(lines))
            },
            observer: writes.clone(),
            tenants: table.clone(),
        },
    )?;

    tenant_settings::apply(config, &own_outputs, &table, &writer)?;
    let opened = opened.with_tenants(&table);
    let state = opened.state();
    let spool = opened.start(Arc::new(writer.clone()))?;

    let guests = guests::open(&current, &state)?;
    let outlet = Arc::new(Egress::new(spool.clone(), quarantine.clone(), activity.clone()));
    let pool = DecodePool::start(guests.host(), &outlet)?;

    let admission = Admission::new(settings::admission(config), registry, table.clone());
    let admission =
        admission.with_devices(devices).with_in_flight(activity).with_parking(Arc::new(spool.clone()));
    let admission = Arc::new(admission);
    let tenants = TenantUpdater::new(plan, table, spool.clone(), writer.clone());
    if let Registry::Postgres(registry) = admission.registry() {
        let tenants = tenants.clone();
        registry.tenant_rows.set(move |table| tenants.apply_registry_rows(table));
    }
    {
        // Before anything comes in that must queue behind it.
        let (spool, admission) = (spool.clone(), admission.clone());
        tokio::task::spawn_blocking(move || spool.parked_topics(|topic| admission.record_parked(topic)))
            .await?;
    }
    let clock = Arc::new(ReceiveClock::open(&data_dir.join("receive-clock"))?);
    let gate = Arc::new(Ingress::new(admission.clone(), pool, outlet, books.clone(), clock.clone()));
    registry_tasks::first_settings(&admission).await;
    let resolving = registry_tasks::start(&admission, &gate);

    let (stop, stopping) = watch::channel(None);
    let taking_up = unpark::start(&spool, &gate, &books, stopping.clone());
    let replays = Replays::new(gate.clone(), quarantine.clone(), window.clone(), stopping.clone());
    let mut sources = JoinSet::new();
    let mut health = Vec::new();
    let mut redelivered = Vec::new();
    let mut door = None;
    let mut answers = None;
    if !config.listen.address.is_empty() {
        let listener = Listener::bind(settings::listener(config)?, window.clone(), gate.clone())?;
        health.push(SourceHealth::new("listener", listener.status()));
        redelivered.push(listener.counters().redelivered.clone());
        door = Some(ListenerHandles { counters: listener.counters(), tls: listener.tls() });
        sources.spawn(worker::vital("listener", listener.run(stopping.clone())));
    }
    if !config.mqtt.url.is_empty() {
        let mut broker = Broker::new(settings::broker(config)?, window.clone(), gate.clone())?;
        if let Some(topic) = settings::answer_topic(config) {
            let (made, outgoing) = RefusalPublisher::new(topic);
            let made = Arc::new(made);
            quarantine.set_observer(made.clone());
            answers = Some(made);
            broker = broker.publishing(outgoing);
        }
        health.push(SourceHealth::new("broker", broker.status()));
        redelivered.push(broker.counters().redelivered.clone());
        sources.spawn(worker::vital("broker", broker.run(stopping)));
    }

    let parts = Arc::new(Handles {
        books,
        window,
        admission: admission.clone(),
        guests: guests.clone(),
        spool: spool.clone(),
        writer: writer.clone(),
        writes,
        quarantine: quarantine.clone(),
        replays: replays.clone(),
        sources: health,
        redelivered,
        door,
        answers,
        registry_fault: parking_lot::Mutex::new(None),
    });
    let (admin_stop, mut admin_stopping) = watch::channel(false);
    let admin = start_admin(config, &parts, async move {
        let _ = admin_stopping.wait_for(|stop| *stop).await;
    })
    .await?;

    let follow = tokio::spawn(worker::vital("follow", follow(parts.clone(), config.log.stats_interval_s)));
    signals::notify(&[NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "tidegate runs");
    let mut watchdog = watchdog();
    loop {
        tokio::select! {
            request = signals.next() => match request {
                SignalRequest::Stop => break,
                SignalRequest::Reload => {
                    tracing::info!("reading configuration, registry and guests again");
                    reload(&tenants, &load).await;
                    check_files(&parts).await;
                }
            },
            _ = watchdog.tick() => signals::notify(&[NotifyState::Watchdog]),
        }
    }

    // Upstream first: no more is read, then what came is settled, then what is settled is
    // acknowledged, and last of all the doors close.
    tracing::info!(deadline_s = config.shutdown.deadline_s, "stopping");
    signals::notify(&[NotifyState::Stopping]);
    let deadline = Instant::now() + Duration::from_secs(config.shutdown.deadline_s);
    parts.window.stop();
    stop.send_replace(Some(deadline.into()));
    let _ = tokio::time::timeout_at(deadline.into(), taking_up).await;
    gate.drain(deadline).await;
    let flushed = {
        let spool = spool.clone();
        tokio::task::spawn_blocking(move || spool.flush(deadline) & quarantine.flush(deadline)).await?
    };
    replays.ended(deadline).await;
    let sources_end = async {
        let ended =
            tokio::time::timeout_at(deadline.into(), async { while sources.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!("a source did not end in time");
        }
    };
    let (left, ()) = tokio::join!(writer.drain(deadline), sources_end);
    // Marks of what was written meanwhile, so that it is not written again.
    {
        let spool = spool.clone();
        tokio::task::spawn_blocking(move || {
            spool.close();
            clock.close();
        })
        .await?;
    }
    follow.abort();
    registry_tasks::finish(&admission).await;
    drop(resolving);
    if !flushed {
        tracing::warn!("stopped with unsettled messages; they are not acknowledged and come again");
    }
    if !left.databases.is_empty() {
        tracing::info!(
            lines = spool.lines_pending(),
            databases = left.databases.len(),
            "stopped with a backlog; it stays in the spool and is written after the next start"
        );
    }
    parts.statistics().log();
    admin_stop.send_replace(true);
    if let Some(admin) = admin {
        admin.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

async fn start_admin(
    config: &Config,
    parts: &Arc<Handles>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
    if config.admin.listen.is_empty() {
        return Ok(None);
    }
    let token = config::secret("admin.token", "", &config.admin.token_file)?;
    let (listener, address) = admin::bind(&config.admin.listen)
        .await
        .with_context(|| format!("admin.listen = {:?} cannot be listened on", config.admin.listen))?;
    tracing::info!(%address, "admin listens");
    let view = status::AdminContext::new(parts.clone());
    let tenants = Some(&config.admin.tenant_tokens_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let control = crate::admin::guests::GuestApi::new(parts.guests.clone(), parts.spool.clone());
    let guests = GuestRoutes::new(control, token.clone(), tenants);
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, view, guests, token, stopped).await {
            tracing::error!(%error, "the admin side has ended");
        }
    })))
}

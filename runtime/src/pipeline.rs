//! The whole flow, joined: sources, admission, decode, writer, quarantine. Everything else knows
//! the domain and nothing of the others.

pub mod settings;
pub mod guests;
pub mod tenants;
pub mod kept;
mod files;
mod flow;
mod parked;
mod replay;
mod view;
mod answers;
mod desk;
mod writes;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::admin::guests::Guests;
use crate::admission::registry::{FileRegistry, Registry};
use crate::admission::{Admission, resolver};
use crate::config::words::{RegistryKind, SpoolSync};
use crate::config::{self, Config, ConfigError, Effective};
use crate::data_dir;
use crate::decode::DecodePool;
use crate::domain::activity::Activity;
use crate::domain::books::Books;
use crate::domain::device_hash::DeviceHasher;
use crate::domain::receive_clock::ReceiveClock;
use crate::domain::slot::Window;
use crate::domain::worker;
use crate::quarantine::Quarantine;
use crate::rollout::RolloutEvent;
use crate::shutdown::{self, Request, Signals};
use crate::source::broker::Broker;
use crate::source::listener::Listener;
use crate::spool::Spool;
use crate::telemetry::health::PartHealth;
use crate::writer::{Writer, WriterParts};
use answers::Answers;
use flow::{Gate, Outlet};
use replay::Replays;
use tenants::{Plan, Tenants};
use view::{Door, Parts, SourceHealth};
use writes::Writes;
use writing::Writing;

/// Reads the configuration again.
pub type Load = dyn Fn() -> Result<Effective, ConfigError> + Send + Sync;

/// Runs the gateway until it is told to stop. `load` reads the configuration again when it is told to.
///
/// # Errors
/// It cannot start: the data folder is taken, a file or folder is not good, an address is taken.
pub async fn run(config: &Config, load: Arc<Load>) -> anyhow::Result<()> {
    if let Some(fault) = files::faults(config).into_iter().next() {
        return Err(fault.into());
    }
    let mut signals = Signals::new()?;
    let data_dir = Path::new(&config.data_dir);
    let _lock = data_dir::lock(data_dir)?;

    // What holds for tenants is known before there are lines of theirs that could go anywhere.
    let registry = registry(config)?;
    let mut plan = Plan::new(config);
    if let Some(table) = resolver::first_tenants(&registry).await
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
    let window = Arc::new(Window::new(admission.unsettled_messages_max, admission.unsettled_bytes_max));
    let activity = Arc::new(Activity::default());
    let quarantine = Quarantine::open(&data_dir.join("quarantine"), settings::quarantine(config), &books)?;
    let writes = Arc::new(Writes::default());
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
    let writing = Writing::start()?;
    let writer = Writer::start(
        settings::writer(config)?,
        WriterParts {
            runtime: writing.runtime.clone(),
            store: opened.lines(),
            refused_lines: {
                let quarantine = quarantine.clone();
                Arc::new(move |lines| quarantine.store_lines(lines))
            },
            observer: writes.clone(),
            tenants: table.clone(),
        },
    )?;

    writing.follow(writer.ease());
    tenants::apply(config, &own_outputs, &table, &writer)?;
    let opened = opened.with_tenants(&table);
    let state = opened.state();
    let spool = opened.start(Arc::new(writer.clone()))?;

    let guests = guests::open(&current, &state)?;
    let outlet = Arc::new(Outlet::new(spool.clone(), quarantine.clone(), activity.clone()));
    let pool = DecodePool::start(guests.host(), &outlet)?;

    let admission = Admission::new(settings::admission(config), registry, table.clone());
    let admission =
        admission.with_devices(devices).with_activity(activity).with_parking(Arc::new(spool.clone()));
    let admission = Arc::new(admission);
    let tenants = Tenants::new(plan, table, spool.clone(), writer.clone());
    if let Registry::Postgres(registry) = admission.registry() {
        let tenants = tenants.clone();
        registry.tenants.to(move |table| tenants.table_says(table));
    }
    {
        // Before anything comes in that must queue behind it.
        let (spool, admission) = (spool.clone(), admission.clone());
        tokio::task::spawn_blocking(move || spool.parked_topics(|topic| admission.note_parked(topic)))
            .await?;
    }
    let clock = Arc::new(ReceiveClock::open(&data_dir.join("receive-clock"))?);
    let gate = Arc::new(Gate::new(admission.clone(), pool, outlet, books.clone(), clock.clone()));
    resolver::first_settings(&admission).await;
    let resolving = resolver::start(&admission, &gate);

    let (stop, stopping) = watch::channel(None);
    let taking_up = parked::start(&spool, &gate, &books, stopping.clone());
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
        door = Some(Door { counters: listener.counters(), tls: listener.tls() });
        sources.spawn(worker::vital("listener", listener.run(stopping.clone())));
    }
    if !config.mqtt.url.is_empty() {
        let mut broker = Broker::new(settings::broker(config)?, window.clone(), gate.clone())?;
        if let Some(topic) = settings::answer_topic(config) {
            let (made, outgoing) = Answers::new(topic);
            let made = Arc::new(made);
            quarantine.tell(made.clone());
            answers = Some(made);
            broker = broker.publishing(outgoing);
        }
        health.push(SourceHealth::new("broker", broker.status()));
        redelivered.push(broker.counters().redelivered.clone());
        sources.spawn(worker::vital("broker", broker.run(stopping)));
    }

    let parts = Arc::new(Parts {
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
    shutdown::notify(&[NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "tidegate runs");
    let mut watchdog = watchdog();
    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Stop => break,
                Request::Reload => {
                    tracing::info!("reading configuration, registry and guests again");
                    reload(&tenants, &load).await;
                    look_again(&parts).await;
                }
            },
            _ = watchdog.tick() => shutdown::notify(&[NotifyState::Watchdog]),
        }
    }

    // Upstream first: no more is read, then what came is settled, then what is settled is
    // acknowledged, and last of all the doors close.
    tracing::info!(deadline_s = config.shutdown.deadline_s, "stopping");
    shutdown::notify(&[NotifyState::Stopping]);
    let deadline = Instant::now() + Duration::from_secs(config.shutdown.deadline_s);
    parts.window.stop();
    stop.send_replace(Some(deadline.into()));
    let _ = tokio::time::timeout_at(deadline.into(), taking_up).await;
    gate.finish_decoding(deadline).await;
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
    resolver::finish(&admission).await;
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

/// What `validate` checks beyond the configuration: registry, guests. Opens no socket, changes
/// nothing.
///
/// # Errors
/// The sandbox cannot be set up.
pub fn check_parts(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    if let Err(error) = registry(config) {
        findings.push(format!("{error:#}"));
    }
    findings.extend(files::faults(config).iter().map(ToString::to_string));
    if let Err(error) = settings::own_outputs(config) {
        findings.push(error.to_string());
    }
    match guests::check(config) {
        Err(error) => findings.push(error.to_string()),
        Ok((_, changes)) => findings.extend(changes.iter().filter_map(|change| match change {
            RolloutEvent::Refused { tenant, message_type, why } => {
                Some(format!("guest {tenant}/{message_type}: {why}"))
            }
            RolloutEvent::Serves { .. } | RolloutEvent::Gone { .. } | RolloutEvent::RolledBack { .. } => None,
        })),
    }
    Ok(findings)
}

/// The registry that the configuration names. Opens no socket.
///
/// # Errors
/// A file of it is not good.
pub fn registry(config: &Config) -> Result<Registry, ConfigError> {
    match config.registry.kind.get() {
        RegistryKind::Open => return Ok(Registry::Open(config.registry.open_tenants.clone())),
        RegistryKind::Postgres => return Ok(Registry::Postgres(Arc::new(settings::postgres(config)?))),
        RegistryKind::File => {}
    }
    let file = &config.registry.file;
    FileRegistry::open(Path::new(file)).map(Registry::File).map_err(|error| {
        ConfigError::value("registry.file", file, format!("a registry file that can be read: {error}"))
    })
}

async fn start_admin(
    config: &Config,
    parts: &Arc<Parts>,
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
    let view = view::Shown::new(parts.clone());
    let tenants = Some(&config.admin.tenant_tokens_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let control = guests::Control::new(parts.guests.clone(), parts.spool.clone());
    let guests = Guests::new(control, token.clone(), tenants);
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, view, guests, token, stopped).await {
            tracing::error!(%error, "the admin side has ended");
        }
    })))
}

fn watchdog() -> tokio::time::Interval {
    // Twice within what the service manager allows (sd_watchdog_enabled(3)).
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3_600), |limit| limit / 2);
    tokio::time::interval(every.max(Duration::from_millis(100)))
}

/// How often the registry's file and the guests folder are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Follows what changes beside us, and logs the statistics line.
async fn follow(parts: Arc<Parts>, stats_interval_s: u64) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stats = tokio::time::interval(Duration::from_secs(stats_interval_s.max(1)));
    stats.tick().await;
    loop {
        tokio::select! {
            _ = look.tick() => look_again(&parts).await,
            _ = stats.tick(), if stats_interval_s > 0 => parts.statistics().log(),
        }
    }
}

async fn reload(tenants: &Arc<Tenants>, load: &Arc<Load>) {
    let (tenants, load) = (tenants.clone(), load.clone());
    if let Err(error) = tokio::task::spawn_blocking(move || tenants.reload(load())).await {
        tracing::error!(%error, "reading the configuration again failed");
    }
}

async fn look_again(parts: &Arc<Parts>) {
    let parts = parts.clone();
    // Reading and compiling are no work for a task that others wait behind.
    let looked = tokio::task::spawn_blocking(move || {
        if let Some(door) = &parts.door {
            door.refresh_certificate();
        }
        if let Registry::File(file) = parts.admission.registry() {
            let fault = match file.reload_if_changed() {
                Ok(true) => {
                    tracing::info!(devices = file.count(), "the registry was read again");
                    None
                }
                Ok(false) => return parts.guests.refresh(),
                Err(error) => {
                    tracing::error!(%error, "the registry stays as it was");
                    Some(error.to_string())
                }
            };
            *parts.registry_fault.lock() = fault;
            parts.admission.follow_registry();
        }
        parts.guests.refresh()
    })
    .await;
    match looked {
        Ok(Ok(changes)) => guests::log_changes(&changes),
        Ok(Err(error)) => tracing::error!(%error, "the guests folder cannot be read; what served goes on"),
        Err(error) => tracing::error!(%error, "looking for changes failed"),
    }
}

/// Health in the words of `/readyz`.
fn registry_health(registry: &Registry, fault: Option<&String>) -> PartHealth {
    if let Registry::Postgres(registry) = registry {
        let (ready, why) = registry.health();
        return PartHealth { ready, why };
    }
    // Devices are known as they were last read well: the gateway can do its work.
    match fault {
        None => PartHealth::ready(),
        Some(why) => PartHealth { ready: true, why: Some(why.clone()) },
    }
}

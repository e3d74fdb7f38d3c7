//! Makes the parts and joins them, from the one that a message meets last to the one that it meets first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::admin::access::AdminTokens;
use crate::admin::context::AdminContext;
use crate::admin::guests::{GuestApi, GuestRoutes};
use crate::admin::server::{AdminLimits, AdminServer};
use crate::admission::registry::Registry;
use crate::admission::{Admission, registry_tasks};
use crate::app::housekeeping::{LoadConfig, housekeeping};
use crate::app::open_files::OpenFiles;
use crate::app::signals::Signals;
use crate::app::tenant_settings::{self, TenantUpdater};
use crate::app::{App, guests};
use crate::audit::AuditLog;
use crate::config::budget_plan::BudgetPlan;
use crate::config::checks::files;
use crate::config::settings::registry::registry;
use crate::config::tenant_config::TenantConfig;
use crate::config::words::SpoolSync;
use crate::config::{self, Config, settings};
use crate::core::ack::in_flight::InFlight;
use crate::core::ack::window::ReceiveWindow;
use crate::core::age_clock::AgeClock;
use crate::core::books::Books;
use crate::core::device_hash::DeviceHasher;
use crate::core::disk_reserve::DiskReserve;
use crate::core::receive_clock::ReceiveClock;
use crate::core::tenant::budgets::BudgetLimits;
use crate::core::tenant::table::Tenants;
use crate::core::worker;
use crate::data_dir;
use crate::decode::sandbox::memory::SandboxMemory;
use crate::decode::{DecodePool, StateStore};
use crate::pipeline::egress::Egress;
use crate::pipeline::ingress::Ingress;
use crate::pipeline::refusal_publisher::RefusalPublisher;
use crate::pipeline::replay::Replays;
use crate::pipeline::unpark;
use crate::quarantine::{Quarantine, StoredObserver};
use crate::source::broker::{Broker, BrokerSettings, OutgoingPublish};
use crate::source::listener::{CertificateReloader, Listener};
use crate::spool::{OpenedSpool, Spool, SpoolSettings};
use crate::telemetry::expiry::ExpiryWatch;
use crate::telemetry::gauges::{Handles, ListenerHandles, SourceHealth, SpoolCeilings};
use crate::telemetry::write_metrics::WriteMetrics;
use crate::writer::thread::{IdleDelay, WriterThread};
use crate::writer::{Writer, WriterParts, WriterSettings};

impl App {
    /// Makes and starts all parts. `load` reads the configuration again on SIGHUP.
    ///
    /// # Errors
    /// The data folder or an address is taken, or a file or folder is invalid.
    pub async fn build(config: &Config, load: Arc<LoadConfig>) -> anyhow::Result<Self> {
        if let Some(fault) = files::faults(config).into_iter().next() {
            return Err(fault.into());
        }
        let open_files = OpenFiles::raise()?;
        let signals = Signals::new()?;
        let data_dir = Path::new(&config.data_dir);
        let lock = data_dir::lock(data_dir)?;

        // Tenants' settings come first: they say where lines go.
        let registry = registry(config)?;
        let tenant_config = tenant_config(config, &registry).await;
        let current = tenant_config.current().clone();
        let config = &*current.get();
        let outputs = settings::own_outputs(config)?;
        let devices = DeviceHasher::new(data_dir::device_seed(data_dir)?);
        let books = Arc::new(Books::default());
        let age_clock = Arc::new(AgeClock::open(data_dir));
        age_clock.persist();
        let disk_reserve = Arc::new(DiskReserve::new(data_dir, config.spool.reserve_bytes));
        let plan = budget_plan(config);
        let tenants = settings::tenants(config, &books, plan.limits);
        let limits = &config.admission;
        let window = ReceiveWindow::new(limits.unsettled_messages_max, limits.unsettled_bytes_max);
        let window = Arc::new(window);
        let in_flight = Arc::new(InFlight::default());

        // Where messages end.
        let (publisher, outgoing) = refusal_publisher(config).unzip();
        let quarantine = open_quarantine(config, (&age_clock, &disk_reserve), &tenants, publisher.as_ref())?;
        let settings = settings::spool(config, devices.tag(), age_clock.clone());
        let opened = open_spool(config, settings, &tenants, &books).await?;
        let writes = Arc::new(WriteMetrics::default());
        let idle_delay = Arc::<IdleDelay>::default();
        let writer_thread =
            WriterThread::start(idle_delay.clone()).context("the writer's thread cannot start")?;
        let writer_settings =
            WriterSettings { memory_bytes_max: plan.writer_bytes_max as usize, ..settings::writer(config)? };
        let writer = start_writer(
            writer_settings,
            &writer_thread,
            idle_delay,
            &opened,
            &quarantine,
            &writes,
            &tenants,
        )?;
        tenant_settings::apply(config, &outputs, &tenants, &writer)?;
        let state = opened.state();
        let spool = opened.start(Arc::new(writer.clone()))?;

        // The stream, from the decoders to its entry.
        let memory = SandboxMemory::new(&tenants.budgets().gateway().memory, plan.call_bytes_max);
        let store = StateStore::from_snapshot(&state, tenants.clone());
        let guests = guests::open(&current, store, &memory, &tenants, &disk_reserve)?;
        let egress = Arc::new(Egress::new(spool.clone(), quarantine.clone(), in_flight.clone()));
        let pool = DecodePool::start(guests.host(), &egress)?;
        let admission = Admission::new(settings::admission(config), registry, tenants.clone())
            .with_devices(devices)
            .with_in_flight(in_flight)
            .with_parking(Arc::new(spool.clone()));
        let admission = Arc::new(admission);
        let updater = TenantUpdater::new(
            tenant_config,
            tenants.clone(),
            spool.clone(),
            writer.clone(),
            admission.clone(),
            guests.clone(),
        );
        updater.observe(admission.registry());
        queue_behind_parked(&spool, &admission).await?;
        let clock = Arc::new(ReceiveClock::open(&data_dir.join("receive-clock"))?);
        let ingress = Ingress::new(admission.clone(), pool, egress, books.clone(), clock.clone());
        let ingress = Arc::new(ingress);
        registry_tasks::first_settings(&admission).await;
        let registry_tasks = registry_tasks::start(&admission, &ingress);

        // Where messages come from.
        let (stop, stopping) = watch::channel(None);
        let unparker = unpark::start(&spool, &ingress, &books, stopping.clone());
        let replays = Replays::new(ingress.clone(), quarantine.clone(), window.clone(), stopping.clone());
        let sources = Sources::start(config, &open_files, &tenants, &window, &ingress, outgoing, stopping)?;
        let admin_tls = settings::admin_tls(config).map(CertificateReloader::open).transpose()?.map(Arc::new);

        let handles = Arc::new(Handles {
            books,
            age_clock,
            disk_reserve,
            tenants,
            budget_plan: plan,
            window,
            admission,
            guests,
            spool,
            writer,
            writes,
            quarantine,
            audit: AuditLog::new(data_dir),
            spool_ceilings: SpoolCeilings {
                bytes_max: config.spool.bytes_max,
                tenant_bytes_max: config.spool.tenant_bytes_max,
            },
            replays,
            sources: sources.health,
            redelivered: sources.redelivered,
            listener: sources.listener,
            admin_tls: admin_tls.clone(),
            expiry: ExpiryWatch::default(),
            refusal_publisher: publisher,
            registry_fault: parking_lot::Mutex::new(None),
        });
        let admin =
            start_admin(config, &handles, AdminLimits { connections_max: open_files.admin, tls: admin_tls })
                .await?;
        let stats_interval_s = config.log.stats_interval_s;
        let housekeeping = worker::vital("housekeeping", housekeeping(handles.clone(), stats_interval_s));
        Ok(Self {
            housekeeping: tokio::spawn(housekeeping),
            admin,
            handles,
            sources: sources.tasks,
            unparker,
            stop,
            registry_tasks,
            ingress,
            clock,
            tenants: updater,
            writer_thread,
            load,
            shutdown_deadline: Duration::from_secs(config.shutdown.deadline_s),
            lock,
            signals: Some(signals),
        })
    }
}

/// The bytes of memory and disk that this machine has for each purpose.
fn budget_plan(config: &Config) -> BudgetPlan {
    let plan = BudgetPlan::measure(config);
    let BudgetLimits { memory_bytes_max, tenant_memory_bytes_max, disk_bytes_max, tenant_disk_bytes_max } =
        plan.limits;
    tracing::info!(
        gateway_memory_bytes = plan.memory_bytes_max,
        memory_bytes = memory_bytes_max,
        tenant_memory_bytes = tenant_memory_bytes_max,
        disk_bytes = disk_bytes_max,
        tenant_disk_bytes = tenant_disk_bytes_max,
        "budgets of all tenants and of each"
    );
    for note in &plan.notes {
        tracing::warn!("{note}");
    }
    plan
}

/// The configuration with the registry's table of tenants, as far as it can be read now.
async fn tenant_config(config: &Config, registry: &Registry) -> TenantConfig {
    let mut tenant_config = TenantConfig::new(config);
    if let Some(table) = registry_tasks::first_tenants(registry).await
        && tenant_config.update(table)
    {
        tenant_config.persist();
    }
    tenant_config
}

type WithOutgoing = (Arc<RefusalPublisher>, tokio::sync::mpsc::Receiver<OutgoingPublish>);

/// The publisher of refusals; `None` without a broker, and if nobody wants answers.
fn refusal_publisher(config: &Config) -> Option<WithOutgoing> {
    let topic = settings::answer_topic(config).filter(|_| !config.mqtt.url.is_empty())?;
    let (publisher, outgoing) = RefusalPublisher::new(topic);
    Some((Arc::new(publisher), outgoing))
}

fn open_quarantine(
    config: &Config,
    (age_clock, disk_reserve): (&Arc<AgeClock>, &Arc<DiskReserve>),
    tenants: &Arc<Tenants>,
    publisher: Option<&Arc<RefusalPublisher>>,
) -> anyhow::Result<Quarantine> {
    let dir = Path::new(&config.data_dir).join("quarantine");
    let observer = publisher.map(|publisher| publisher.clone() as Arc<dyn StoredObserver>);
    let settings = settings::quarantine(config, age_clock.clone(), disk_reserve.clone(), Some(tenants));
    Ok(Quarantine::open(&dir, settings, observer, tenants.books())?)
}

async fn open_spool(
    config: &Config,
    settings: SpoolSettings,
    tenants: &Arc<Tenants>,
    books: &Arc<Books>,
) -> anyhow::Result<OpenedSpool> {
    let dir = Path::new(&config.data_dir).join("spool");
    let (tenants, books) = (tenants.clone(), books.clone());
    let open = move || Spool::open(&dir, settings, Some(tenants), &books);
    let opened = tokio::task::spawn_blocking(open).await??;
    if config.spool.sync.is(SpoolSync::Never) {
        tracing::warn!(
            "spool.sync = \"never\": a power cut loses what was acknowledged; this is for benches"
        );
    }
    Ok(opened)
}

fn start_writer(
    settings: WriterSettings,
    thread: &WriterThread,
    idle_delay: Arc<IdleDelay>,
    opened: &OpenedSpool,
    quarantine: &Quarantine,
    writes: &Arc<WriteMetrics>,
    tenants: &Arc<Tenants>,
) -> anyhow::Result<Writer> {
    let quarantine = quarantine.clone();
    let parts = WriterParts {
        runtime: thread.runtime.clone(),
        idle_delay,
        store: opened.lines(),
        refused_lines: Arc::new(move |lines| quarantine.store_lines(lines)),
        observer: writes.clone(),
        tenants: tenants.clone(),
    };
    Ok(Writer::start(settings, parts)?)
}

/// Has new messages of a device wait behind those of it that are parked.
async fn queue_behind_parked(spool: &Spool, admission: &Arc<Admission>) -> anyhow::Result<()> {
    let (spool, admission) = (spool.clone(), admission.clone());
    let noted = move || spool.parked_topics(|topic| admission.record_parked(topic));
    Ok(tokio::task::spawn_blocking(noted).await?)
}

/// The listener and the broker session, as far as they are configured.
struct Sources {
    tasks: JoinSet<()>,
    health: Vec<SourceHealth>,
    redelivered: Vec<Arc<std::sync::atomic::AtomicU64>>,
    listener: Option<ListenerHandles>,
}

impl Sources {
    fn start(
        config: &Config,
        open_files: &OpenFiles,
        tenants: &Arc<Tenants>,
        window: &Arc<ReceiveWindow>,
        ingress: &Arc<Ingress>,
        outgoing: Option<tokio::sync::mpsc::Receiver<OutgoingPublish>>,
        stopping: watch::Receiver<Option<tokio::time::Instant>>,
    ) -> anyhow::Result<Self> {
        let mut sources =
            Self { tasks: JoinSet::new(), health: Vec::new(), redelivered: Vec::new(), listener: None };
        if !config.listen.address.is_empty() {
            let mut listen = settings::listener(config, tenants)?;
            listen.connections_max = open_files.connections(listen.connections_max);
            let listener = Listener::bind(listen, window.clone(), ingress.clone())?;
            sources.health.push(SourceHealth::new("listener", listener.status()));
            sources.redelivered.push(listener.counters().redelivered.clone());
            sources.listener = Some(ListenerHandles { counters: listener.counters(), tls: listener.tls() });
            sources.tasks.spawn(worker::vital("listener", listener.run(stopping.clone())));
        }
        if !config.mqtt.url.is_empty() {
            let mut broker = Broker::new(broker_settings(config)?, window.clone(), ingress.clone())?;
            if let Some(outgoing) = outgoing {
                broker = broker.publishing(outgoing);
            }
            sources.health.push(SourceHealth::new("broker", broker.status()));
            sources.redelivered.push(broker.counters().redelivered.clone());
            sources.tasks.spawn(worker::vital("broker", broker.run(stopping)));
        }
        Ok(sources)
    }
}

/// The settings of the broker session, with the client id of this data folder.
fn broker_settings(config: &Config) -> anyhow::Result<BrokerSettings> {
    let client_id = data_dir::client_id(Path::new(&config.data_dir), &config.mqtt.client_id)?;
    Ok(BrokerSettings { client_id, ..settings::broker(config)? })
}

/// The admin side; `None` if no address is configured.
async fn start_admin(
    config: &Config,
    handles: &Arc<Handles>,
    limits: AdminLimits,
) -> anyhow::Result<Option<AdminServer>> {
    if config.admin.listen.is_empty() {
        return Ok(None);
    }
    let tokens = AdminTokens {
        operator: config::secret("admin.token", "", &config.admin.token_file)?,
        reader: config::secret("admin.read_token", "", &config.admin.read_token_file)?,
    };
    let (listener, address) = admin::bind(&config.admin.listen)
        .await
        .with_context(|| format!("admin.listen = {:?} cannot be listened on", config.admin.listen))?;
    tracing::info!(%address, tls = limits.tls.is_some(), "admin listens");
    let tenant_tokens =
        Some(&config.admin.tenant_tokens_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let api = GuestApi::new(
        handles.guests.clone(),
        handles.spool.clone(),
        handles.tenants.clone(),
        handles.audit.clone(),
    );
    let guests = GuestRoutes::new(api, tokens.clone(), tenant_tokens);
    let router = admin::router(AdminContext::new(handles.clone(), tokens), guests);
    Ok(Some(AdminServer::start(listener, router, limits).context("the admin side's thread cannot start")?))
}

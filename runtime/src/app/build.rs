//! Makes the parts and joins them, from the one that a message meets last to the one that it meets first.

mod foundation;
mod destinations;
mod sources;
mod admin_side;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::server::AdminLimits;
use crate::admission::{Admission, registry_tasks};
use crate::app::build::admin_side::start_admin;
use crate::app::build::destinations::Destinations;
use crate::app::build::foundation::Foundation;
use crate::app::build::sources::Sources;
use crate::app::fleet::Fleet;
use crate::app::follow_config::follow;
use crate::app::housekeeping::{LoadConfig, housekeeping};
use crate::app::signals::Signals;
use crate::app::tenant_settings::TenantUpdater;
use crate::app::{App, guests};
use crate::audit::AuditLog;
use crate::config::in_force::ConfigInForce;
use crate::config::remote::follower::ConfigFollower;
use crate::config::{Config, settings};
use crate::core::receive_clock::ReceiveClock;
use crate::core::worker;
use crate::decode::sandbox::memory::SandboxMemory;
use crate::decode::{DecodePool, StateStore};
use crate::fleet::drain::Drain;
use crate::pipeline::egress::Egress;
use crate::pipeline::ingress::Ingress;
use crate::pipeline::replay::Replays;
use crate::pipeline::tap::Tap;
use crate::pipeline::unpark;
use crate::source::listener::CertificateReloader;
use crate::spool::Spool;
use crate::telemetry::expiry::ExpiryWatch;
use crate::telemetry::handles::{Handles, SpoolCeilings};
use crate::telemetry::history::History;
use crate::telemetry::progress;

impl App {
    /// Makes and starts all parts. `load` reads the configuration again on SIGHUP; `follower` looks for new versions
    /// of one from afar.
    ///
    /// # Errors
    /// The data folder or an address is taken, or a file or folder is invalid.
    pub async fn build(
        config: &Config,
        load: Arc<LoadConfig>,
        follower: Option<Arc<ConfigFollower>>,
    ) -> anyhow::Result<Self> {
        let signals = Signals::new()?;
        let base = Foundation::open(config).await?;
        let current = base.tenant_config.current().clone();
        let config = &*current.get();

        // Messages end here.
        progress::set_step("segments of the spool are read");
        let ends = Destinations::open(config, &base).await?;
        let Foundation { lock, open_files, registry, tenant_config, devices, books, .. } = base;
        let Foundation { age_clock, disk_reserve, plan, tenants, window, in_flight, .. } = base;
        let Destinations { publisher, births, outgoing, quarantine, spool, state, writer, .. } = ends;
        let data_dir = Path::new(&config.data_dir);

        // The stream, from the decoders to its entry.
        let memory = SandboxMemory::new(&tenants.budgets().gateway().memory, plan.call_bytes_max);
        progress::set_step("decoders are compiled and started");
        let store = StateStore::from_snapshot(&state, tenants.clone());
        let guests = guests::open(&current, store, &memory, &tenants, &disk_reserve)?;
        progress::set_step("the gateway starts");
        let tap = Tap::new(settings::topics(config));
        let egress = Egress::new(spool.clone(), quarantine.clone(), in_flight.clone(), tap.clone());
        let egress = Arc::new(egress.with_births(births.clone()));
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
        let ingress =
            Ingress::new(admission.clone(), pool, egress, books.clone(), clock.clone(), tap.clone());
        let ingress = Arc::new(ingress);
        registry_tasks::first_settings(&admission).await;
        let registry_tasks = registry_tasks::start(&admission, &ingress);

        // Messages come from here.
        let (stop, stopping) = watch::channel(None);
        let unparker = unpark::start(&spool, &ingress, &books, stopping.clone());
        let replays = Replays::new(ingress.clone(), quarantine.clone(), window.clone(), stopping.clone());
        let stopped = stopping.clone();
        let mut sources =
            Sources::start(config, &open_files, &tenants, &window, &ingress, outgoing, stopping)?;
        let drain = Drain::new(settings::drain(config));
        if let Some(listener) = &sources.listener {
            sources.tasks.spawn(worker::vital("drain", drain.clone().run(listener.drain.clone(), stopped)));
        }
        let admin_tls = settings::admin_tls(config).map(CertificateReloader::open).transpose()?.map(Arc::new);

        let handles = Arc::new(Handles {
            gateway: config.fleet.name.clone(),
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
            writes: ends.writes,
            quarantine,
            audit: AuditLog::new(data_dir),
            spool_ceilings: SpoolCeilings {
                bytes_max: config.spool.bytes_max,
                tenant_bytes_max: config.spool.tenant_bytes_max,
            },
            replays,
            tap,
            sources: sources.health,
            redelivered: sources.redelivered,
            drain,
            listener: sources.listener,
            admin_tls: admin_tls.clone(),
            expiry: ExpiryWatch::default(),
            refusal_publisher: publisher,
            birth_requester: births,
            registry_fault: parking_lot::Mutex::new(None),
            history: History::default(),
            started: Instant::now(),
            started_at: SystemTime::now(),
        });
        let limits = AdminLimits { connections_max: open_files.admin, tls: admin_tls };
        let in_force = ConfigInForce::new(current.clone(), load.clone(), follower.clone());
        let admin = start_admin(config, &handles, in_force.clone(), limits).await?;
        let fleet = Fleet::start(config, &handles, in_force)?;
        let stats_interval_s = config.log.stats_interval_s;
        let housekeeping = worker::vital("housekeeping", housekeeping(handles.clone(), stats_interval_s));
        let mut beside = JoinSet::new();
        if let Some(follower) = follower.clone() {
            let interval = Duration::from_secs(config.fleet.config_poll_s);
            beside.spawn(follow(follower, updater.clone(), load.clone(), interval));
        }
        Ok(Self {
            housekeeping: tokio::spawn(housekeeping),
            beside,
            fleet,
            admin,
            handles,
            sources: sources.tasks,
            unparker,
            stop,
            registry_tasks,
            ingress,
            clock,
            tenants: updater,
            writer_thread: ends.writer_thread,
            load,
            follower,
            shutdown_deadline: Duration::from_secs(config.shutdown.deadline_s),
            lock,
            signals: Some(signals),
        })
    }
}

/// Has new messages of a device wait behind those of it that are parked.
async fn queue_behind_parked(spool: &Spool, admission: &Arc<Admission>) -> anyhow::Result<()> {
    let (spool, admission) = (spool.clone(), admission.clone());
    let noted = move || spool.parked_topics(|topic| admission.record_parked(topic));
    Ok(tokio::task::spawn_blocking(noted).await?)
}

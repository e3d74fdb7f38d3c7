//! The assembly: makes the parts, joins them, runs them and stops them. Parts know core and no other part.

mod build;
mod stop;
mod open_files;
pub mod signals;
pub(crate) mod housekeeping;
pub(crate) mod wall_clock;
pub mod tenant_settings;
pub mod guests;
pub(crate) mod check;
mod fleet;
mod follow_config;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::server::AdminServer;
use crate::app::fleet::Fleet;
use crate::app::housekeeping::{check_files, reload, watchdog};
use crate::app::signals::{SignalRequest, Signals};
use crate::app::tenant_settings::TenantUpdater;
use crate::config::remote::follower::ConfigFollower;
use crate::core::receive_clock::ReceiveClock;
use crate::pipeline::ingress::Ingress;
use crate::telemetry::handles::Handles;
use crate::writer::thread::WriterThread;

pub use crate::app::check::check;
pub use crate::app::housekeeping::LoadConfig;

/// The running gateway. Fields are dropped in this order, upstream first; the folder is released last.
pub struct App {
    housekeeping: JoinHandle<()>,
    /// Tasks beside the stream, which end with the gateway.
    beside: JoinSet<()>,
    fleet: Fleet,
    admin: Option<AdminServer>,
    handles: Arc<Handles>,
    sources: JoinSet<()>,
    /// Submits parked messages again; ends with `stop`.
    unparker: JoinHandle<()>,
    /// The deadline of the stop, once it was asked for.
    stop: watch::Sender<Option<tokio::time::Instant>>,
    registry_tasks: JoinSet<()>,
    ingress: Arc<Ingress>,
    clock: Arc<ReceiveClock>,
    tenants: Arc<TenantUpdater>,
    /// Held for its thread, which ends with it.
    #[expect(dead_code)]
    writer_thread: WriterThread,
    load: Arc<LoadConfig>,
    /// For a configuration from afar.
    follower: Option<Arc<ConfigFollower>>,
    shutdown_deadline: Duration,
    /// Held for its lock on the data folder.
    #[expect(dead_code)]
    lock: File,
    /// Taken when it runs.
    signals: Option<Signals>,
}

impl App {
    /// Runs until SIGTERM or SIGINT, and then stops within the deadline, or at once when another comes.
    ///
    /// # Errors
    /// A task of the stop has panicked.
    pub async fn run(mut self) -> anyhow::Result<()> {
        signals::notify(&[NotifyState::Ready]);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "tidegate runs");
        let mut watchdog = watchdog();
        let mut signals = self.signals.take().expect("it was made with them");
        loop {
            tokio::select! {
                request = signals.next() => match request {
                    SignalRequest::Stop => return self.stop(signals).await,
                    SignalRequest::Reload => {
                        tracing::info!("reading configuration, registry and guests again");
                        reload(&self.tenants, &self.load).await;
                        check_files(&self.handles).await;
                        if let Some(follower) = &self.follower {
                            follower.look_soon();
                        }
                    }
                },
                _ = watchdog.tick() => signals::notify(&[NotifyState::Watchdog]),
            }
        }
    }
}

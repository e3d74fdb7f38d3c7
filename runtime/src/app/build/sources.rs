//! The listener and the broker session.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::app::open_files::OpenFiles;
use crate::config::{Config, settings};
use crate::core::ack::window::ReceiveWindow;
use crate::core::tenant::table::Tenants;
use crate::core::worker;
use crate::data_dir;
use crate::pipeline::ingress::Ingress;
use crate::source::broker::{Broker, BrokerSettings, OutgoingPublish};
use crate::source::listener::Listener;
use crate::telemetry::handles::{ListenerHandles, SourceHealth};

/// The sources that are configured.
pub(super) struct Sources {
    pub tasks: JoinSet<()>,
    pub health: Vec<SourceHealth>,
    pub redelivered: Vec<Arc<AtomicU64>>,
    pub listener: Option<ListenerHandles>,
}

impl Sources {
    /// Starts them. They end with `stopping`.
    ///
    /// # Errors
    /// An address is taken, or a file of TLS is invalid.
    pub fn start(
        config: &Config,
        open_files: &OpenFiles,
        tenants: &Arc<Tenants>,
        window: &Arc<ReceiveWindow>,
        ingress: &Arc<Ingress>,
        outgoing: Option<mpsc::Receiver<OutgoingPublish>>,
        stopping: watch::Receiver<Option<tokio::time::Instant>>,
    ) -> anyhow::Result<Self> {
        let mut sources =
            Self { tasks: JoinSet::new(), health: Vec::new(), redelivered: Vec::new(), listener: None };
        if !config.listen.address.is_empty() {
            let mut listen = settings::listener(config, tenants)?;
            listen.connections_max = open_files.connections(listen.connections_max);
            let connections_max = listen.connections_max;
            let listener = Listener::bind(listen, window.clone(), ingress.clone())?;
            sources.health.push(SourceHealth::new("listener", listener.status()));
            sources.redelivered.push(listener.counters().redelivered.clone());
            let (counters, drain, tls) = (listener.counters(), listener.drain(), listener.tls());
            sources.listener = Some(ListenerHandles { counters, connections_max, drain, tls });
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
    settings::broker(config, client_id)
}

//! The gateway's row among all gateways: started, and told of the stop.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::config::in_force::ConfigInForce;
use crate::config::{Config, settings};
use crate::core::device_hash::random_seed;
use crate::data_dir;
use crate::fleet::reporter::Reporter;
use crate::fleet::store::GatewayStart;
use crate::telemetry::handles::Handles;

/// The reporter and its task; nothing where no fleet is configured.
#[derive(Default)]
pub(crate) struct Fleet(Option<(JoinHandle<()>, Arc<Mutex<Reporter>>)>);

impl Fleet {
    /// Starts to report.
    ///
    /// # Errors
    /// A file that `fleet` names cannot be read.
    pub fn start(config: &Config, handles: &Arc<Handles>, in_force: ConfigInForce) -> anyhow::Result<Self> {
        let Some(server) = settings::fleet(config)? else { return Ok(Self::default()) };
        let this = GatewayStart {
            name: config.fleet.name.clone(),
            folder: data_dir::folder_id(Path::new(&config.data_dir))?,
            start: format!("{:016x}", random_seed()),
            report_s: config.fleet.report_s,
        };
        let reporter = Reporter::new(server, this, handles.clone(), in_force);
        let reporter = Arc::new(Mutex::new(reporter));
        let reports = reporter.clone();
        let task = tokio::spawn(async move { reports.lock().await.run().await });
        Ok(Self(Some((task, reporter))))
    }

    /// Reports the stop.
    pub async fn finish(&mut self) {
        if let Some((task, reporter)) = self.0.take() {
            task.abort();
            // It lets go of the reporter.
            let _ = task.await;
            reporter.lock().await.finish().await;
        }
    }
}

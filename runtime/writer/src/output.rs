//! An output: a server or a folder, with its circuit breaker and the ceilings of its requests. Most
//! lines go to the common one. A tenant may have its own, whose troubles are then its own too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::body_limit::BodyLimit;
use crate::circuit_breaker::CircuitBreaker;
use crate::endpoint::Endpoint;
use crate::error::WriterError;
use crate::file_output::FileOutput;
use crate::limits;
use crate::server_version::ServerWatch;
use crate::settings::{HttpSettings, OutputSettings};
use tidegate_core::tenant::settings::OutputId;

pub enum OutputTransport {
    Http(Endpoint),
    File(Arc<FileOutput>),
}

pub struct Output {
    pub transport: OutputTransport,
    pub breaker: CircuitBreaker,
    /// Requests under way to the endpoint: of databases that are well, of those in trouble, and
    /// those that take so long that they stand in nobody's way.
    pub requests: Arc<Semaphore>,
    pub probes: Arc<Semaphore>,
    pub slow: Arc<Semaphore>,
    pub body_limit: BodyLimit,
    pub server: ServerWatch,
    settings: OutputSettings,
}

impl Output {
    /// # Errors
    /// The settings can lead nowhere. No connection is opened yet.
    pub fn new(settings: &OutputSettings) -> Result<Self, WriterError> {
        let transport = match settings {
            OutputSettings::Http(http) => OutputTransport::Http(Endpoint::new(http)?),
            OutputSettings::File { path } => OutputTransport::File(Arc::new(FileOutput::new(path))),
        };
        Ok(Self {
            transport,
            breaker: CircuitBreaker::default(),
            requests: Arc::new(Semaphore::new(limits::ENDPOINT_REQUESTS_MAX)),
            probes: Arc::new(Semaphore::new(limits::ENDPOINT_PROBES_MAX)),
            slow: Arc::new(Semaphore::new(limits::ENDPOINT_SLOW_REQUESTS_MAX)),
            body_limit: BodyLimit::default(),
            server: ServerWatch::default(),
            settings: settings.clone(),
        })
    }

    /// The server; `None` where lines go to files.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.transport {
            OutputTransport::Http(endpoint) => Some(endpoint),
            OutputTransport::File(_) => None,
        }
    }

    /// True if it was made of these settings.
    pub fn has_settings(&self, settings: &HttpSettings) -> bool {
        matches!(&self.settings, OutputSettings::Http(own) if own == settings)
    }
}

/// The outputs of tenants whose lines do not go to the common one.
#[derive(Clone, Default)]
pub struct Outputs {
    by_id: HashMap<OutputId, Arc<Output>>,
    /// All that were ever opened.
    opened: u64,
}

impl Outputs {
    pub fn get(&self, id: OutputId) -> Option<Arc<Output>> {
        self.by_id.get(&id).cloned()
    }

    /// The id of the output with these settings, which is opened if there is none. Tenants of one server
    /// share its output.
    ///
    /// # Errors
    /// The settings can lead nowhere.
    pub fn open(&mut self, settings: &HttpSettings) -> Result<OutputId, WriterError> {
        if let Some((id, _)) = self.by_id.iter().find(|(_, output)| output.has_settings(settings)) {
            return Ok(*id);
        }
        let output = Arc::new(Output::new(&OutputSettings::Http(settings.clone()))?);
        self.opened += 1;
        let id = OutputId::new(self.opened);
        self.by_id.insert(id, output);
        Ok(id)
    }

    pub fn has(&self, output: &Arc<Output>) -> bool {
        self.by_id.values().any(|own| Arc::ptr_eq(own, output))
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Output>> {
        self.by_id.values()
    }

    /// Closes all that are not `in_use`.
    pub fn retain(&mut self, in_use: &HashSet<OutputId>) {
        self.by_id.retain(|id, _| in_use.contains(id));
    }
}

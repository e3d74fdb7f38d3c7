//! One way out: a server or a folder, whether requests to it make sense, and how many may be under way.
//! Most lines go the common way; a tenant may have its own, whose troubles are then its own too.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::circuit_breaker::CircuitBreaker;
use crate::endpoint::Endpoint;
use crate::file_output::FileOutput;
use crate::limits;
use crate::settings::{HttpSettings, OutputSettings, WriterError};

pub enum OutputTransport {
    Http(Endpoint),
    File(Arc<FileOutput>),
}

pub struct Output {
    pub output: OutputTransport,
    pub gate: CircuitBreaker,
    /// Requests under way to the endpoint: of databases that are well, of those in trouble, and
    /// those that take so long that they stand in nobody's way.
    pub requests: Arc<Semaphore>,
    pub probes: Arc<Semaphore>,
    pub slow: Arc<Semaphore>,
    /// What it was made by.
    settings: OutputSettings,
}

impl Output {
    /// # Errors
    /// The settings can lead nowhere. No connection is opened yet.
    pub fn new(settings: &OutputSettings) -> Result<Self, WriterError> {
        let output = match settings {
            OutputSettings::Http(http) => OutputTransport::Http(Endpoint::new(http)?),
            OutputSettings::File { path } => OutputTransport::File(Arc::new(FileOutput::new(path))),
        };
        Ok(Self {
            output,
            gate: CircuitBreaker::default(),
            requests: Arc::new(Semaphore::new(limits::ENDPOINT_REQUESTS_MAX)),
            probes: Arc::new(Semaphore::new(limits::ENDPOINT_PROBES_MAX)),
            slow: Arc::new(Semaphore::new(limits::ENDPOINT_SLOW_REQUESTS_MAX)),
            settings: settings.clone(),
        })
    }

    /// Whether it was made by these settings.
    pub fn has_settings(&self, settings: &HttpSettings) -> bool {
        matches!(&self.settings, OutputSettings::Http(own) if own == settings)
    }
}

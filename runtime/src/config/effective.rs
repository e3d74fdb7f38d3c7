//! A configuration after all checks, and the one in force.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::sections::Config;
use crate::config::source::ValueSources;

/// A configuration that has passed every check, and where its values came from.
#[derive(Debug)]
pub struct EffectiveConfig {
    pub config: Config,
    pub sources: ValueSources,
    /// Remarks on accepted settings: variables without effect, doubtful values.
    pub notes: Vec<String>,
}

/// The configuration that holds now; clones are the same one.
#[derive(Clone, Debug)]
pub struct CurrentConfig(Arc<RwLock<Arc<Config>>>);

impl CurrentConfig {
    pub fn new(config: Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    pub fn get(&self) -> Arc<Config> {
        self.0.read().clone()
    }

    pub fn set(&self, config: Config) {
        *self.0.write() = Arc::new(config);
    }
}

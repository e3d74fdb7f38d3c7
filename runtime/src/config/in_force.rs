//! The configuration in force, with the source of each value, and the one that a restart would take.

use std::fmt;
use std::sync::Arc;

use crate::config::differences::differences;
use crate::config::effective::{CurrentConfig, EffectiveConfig};
use crate::config::error::ConfigError;
use crate::config::remote::follower::ConfigFollower;
use crate::config::remote::status::OriginStatus;
use crate::config::sections::Config;

/// Reads the configuration again.
pub type ReadConfig = dyn Fn() -> Result<EffectiveConfig, ConfigError> + Send + Sync;

/// The configuration that holds, and how it is read again.
#[derive(Clone)]
pub struct ConfigInForce {
    current: CurrentConfig,
    /// The configuration at the start, for what needs a restart.
    at_start: Config,
    read: Arc<ReadConfig>,
    /// For a configuration from afar.
    follower: Option<Arc<ConfigFollower>>,
}

impl fmt::Debug for ConfigInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigInForce").finish_non_exhaustive()
    }
}

impl ConfigInForce {
    pub fn new(current: CurrentConfig, read: Arc<ReadConfig>, follower: Option<Arc<ConfigFollower>>) -> Self {
        let at_start = (*current.get()).clone();
        Self { current, at_start, read, follower }
    }

    /// The state of a configuration from afar; `None` for a file.
    pub fn origin(&self) -> Option<OriginStatus> {
        self.follower.as_ref().map(|follower| follower.status())
    }

    pub fn current(&self) -> Arc<Config> {
        self.current.get()
    }

    /// The configuration in force, with the sources that its values have now, and the keys that a restart would
    /// change. Reads files.
    ///
    /// # Errors
    /// The files hold no valid configuration any more.
    pub fn report(&self) -> Result<(EffectiveConfig, Vec<String>), ConfigError> {
        let EffectiveConfig { config, sources, notes } = (self.read)()?;
        let changed = differences(&self.at_start, &config);
        let config = (*self.current.get()).clone();
        Ok((EffectiveConfig { config, sources, notes }, changed))
    }
}

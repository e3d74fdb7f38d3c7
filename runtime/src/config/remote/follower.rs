//! The versions of a configuration from afar, as they come: looked for, checked whole, kept, and told of.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config;
use crate::config::remote::checkout;
use crate::config::remote::fetch::{ConfigFetcher, Fetched};
use crate::config::remote::kept;
use crate::config::remote::origin::{RemoteOrigin, data_dir};
use crate::config::remote::status::{OriginStatus, RefusedVersion};
use crate::config::remote::version::ConfigVersion;
use crate::config::source::Environment;
use crate::config::{Config, ConfigError, EffectiveConfig};
use crate::limits::CONFIG_FINDINGS_SHOWN;

/// The checks of `validate` beyond the configuration itself: its findings. It may compile decoders.
pub type CheckConfig = dyn Fn(&Config) -> anyhow::Result<Vec<String>> + Send + Sync;

/// The result of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The version that holds is the newest, or no other can be had.
    Unchanged,
    /// A new version holds from now on.
    Held,
    /// The newest version does not hold.
    Refused,
}

/// One place, the version that holds, and what is known of a newer one.
pub struct ConfigFollower {
    origin: RemoteOrigin,
    /// For an address.
    fetcher: Option<ConfigFetcher>,
    environment: Environment,
    data_dir: PathBuf,
    check: Box<CheckConfig>,
    held: Mutex<Arc<ConfigVersion>>,
    status: Mutex<OriginStatus>,
    looks: Notify,
}

impl fmt::Debug for ConfigFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigFollower").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Reads a version as the configuration that it is.
///
/// # Errors
/// It is none, or names another data folder than the one in which it is kept.
pub fn load(
    origin: &RemoteOrigin,
    version: &ConfigVersion,
    environment: &Environment,
) -> Result<EffectiveConfig, ConfigError> {
    let place = match origin {
        RemoteOrigin::Address(_) => PathBuf::from(origin.to_string()),
        RemoteOrigin::Checkout(folder) => folder.join(config::DEFAULT_FILE),
    };
    let effective = config::load_text(&place, &version.text, environment)?;
    let folder = data_dir(environment);
    if Path::new(&effective.config.data_dir) != folder {
        let expected = format!(
            "{folder:?}: with a configuration from afar the data folder must be known before it is read, so it is the \
             default or TIDEGATE_DATA_DIR"
        );
        return Err(ConfigError::value("data_dir", &effective.config.data_dir, expected));
    }
    Ok(effective)
}

/// Gets the version that a place has now. For verbs.
///
/// # Errors
/// No version can be had.
pub async fn get(origin: &RemoteOrigin, environment: &Environment) -> Result<ConfigVersion, ConfigError> {
    let fault = |why: String| ConfigError::Remote { place: origin.to_string(), why };
    match origin {
        RemoteOrigin::Checkout(folder) => checkout::read(folder).map_err(|error| fault(error.to_string())),
        RemoteOrigin::Address(url) => {
            let fetched = ConfigFetcher::new(url.clone(), environment)?.fetch(&[]).await;
            match fetched.map_err(|error| fault(error.to_string()))? {
                Fetched::New(version) => Ok(version),
                Fetched::Known(tag) => {
                    Err(fault(format!("the answer is 304 for {tag}, though no version was named")))
                }
            }
        }
    }
}

impl ConfigFollower {
    /// Looks for a version, and checks it. The one that an earlier run kept holds if that fails.
    ///
    /// # Errors
    /// There is no version that may hold.
    pub async fn start(
        origin: RemoteOrigin,
        environment: Environment,
        check: Box<CheckConfig>,
    ) -> Result<Arc<Self>, ConfigError> {
        let data_dir = data_dir(&environment);
        let place = origin.to_string();
        let fetcher = match &origin {
            RemoteOrigin::Address(url) => Some(ConfigFetcher::new(url.clone(), &environment)?),
            RemoteOrigin::Checkout(_) => None,
        };
        // What is kept was checked when it came. This program may be another one.
        let kept = match kept::read(&data_dir, &place) {
            Ok(None) => Err("none was kept by an earlier run".to_owned()),
            Ok(Some(version)) => match load(&origin, &version, &environment) {
                Ok(_) => Ok(version),
                Err(error) => Err(format!("the one that was kept is invalid: {error}")),
            },
            Err(error) => Err(error.to_string()),
        };
        let (kept, why_none) = match kept {
            Ok(version) => (Some(version), String::new()),
            Err(why) => (None, why),
        };
        let has_kept = kept.is_some();
        let held = kept.unwrap_or_else(|| ConfigVersion {
            text: String::new(),
            tag: String::new(),
            digest: String::new(),
        });
        let status = OriginStatus {
            place: place.clone(),
            version: held.name(),
            from_kept: true,
            ..Default::default()
        };
        let follower = Arc::new(Self {
            origin,
            fetcher,
            environment,
            data_dir,
            check,
            held: Mutex::new(Arc::new(held)),
            status: Mutex::new(status),
            looks: Notify::new(),
        });
        follower.clone().look().await;
        let status = follower.status();
        if status.from_kept && !has_kept {
            let why = status.fault().unwrap_or_default();
            return Err(ConfigError::Remote { place, why: format!("{why}; {why_none}") });
        }
        Ok(follower)
    }

    pub fn status(&self) -> OriginStatus {
        self.status.lock().clone()
    }

    /// The version that holds, as a configuration.
    ///
    /// # Errors
    /// A variable of this process has become invalid.
    pub fn load(&self) -> Result<EffectiveConfig, ConfigError> {
        let held = self.held.lock().clone();
        load(&self.origin, &held, &self.environment)
    }

    /// Keeps the version that holds, for a start without the network. The caller holds the data folder.
    pub fn keep(&self) {
        let held = self.held.lock().clone();
        if let Err(error) = kept::write(&self.data_dir, &self.origin.to_string(), &held) {
            tracing::error!(%error, "the configuration cannot be kept: a start without the network will fail, or take an older one");
        }
    }

    /// Asks for a look without waiting for the next one. A version that was refused is checked again: what it needs
    /// beside it may be there now.
    pub fn look_soon(&self) {
        self.status.lock().refused = None;
        self.looks.notify_one();
    }

    /// Waits until the next look is due.
    pub async fn due(&self, interval: Duration) {
        let _ = tokio::time::timeout(interval, self.looks.notified()).await;
    }

    /// Looks for a newer version. One that passes all checks holds from then on.
    pub async fn look(self: Arc<Self>) -> Look {
        let found = match &self.fetcher {
            Some(fetcher) => {
                let status = self.status();
                let refused = status.refused.as_ref().map(|refused| refused.version.tag.as_str());
                let tags = [Some(status.version.tag.as_str()), refused].into_iter().flatten();
                let tags: Vec<&str> = tags.filter(|tag| !tag.is_empty()).collect();
                fetcher.fetch(&tags).await.map_err(|error| error.to_string())
            }
            None => {
                let RemoteOrigin::Checkout(folder) = &self.origin else { return Look::Unchanged };
                checkout::read(folder).map(Fetched::New).map_err(|error| error.to_string())
            }
        };
        let version = match found {
            Err(why) => return self.none_came(why),
            Ok(Fetched::Known(tag)) => return self.known(&tag),
            Ok(Fetched::New(version)) => version,
        };
        if version.digest == self.held.lock().digest {
            return self.known_again(version);
        }
        let is_refused = |status: &OriginStatus| {
            status.refused.as_ref().is_some_and(|refused| refused.version.digest == version.digest)
        };
        {
            let mut status = self.status.lock();
            if is_refused(&status) {
                status.unreachable = None;
                return Look::Refused;
            }
        }
        let (follower, candidate) = (self.clone(), version.clone());
        let judged = tokio::task::spawn_blocking(move || follower.judge(&candidate)).await;
        match judged.unwrap_or_else(|error| Err(format!("its check has failed: {error}"))) {
            Err(why) => {
                tracing::error!(place = %self.origin, tag = version.tag, digest = version.digest, why, "a new version of the configuration is refused; the old one stays");
                let mut status = self.status.lock();
                status.unreachable = None;
                status.refused = Some(RefusedVersion { version: version.name(), why });
                Look::Refused
            }
            Ok(()) => {
                tracing::info!(place = %self.origin, tag = version.tag, digest = version.digest, "a new version of the configuration holds");
                let name = version.name();
                *self.held.lock() = Arc::new(version);
                let place = self.origin.to_string();
                *self.status.lock() = OriginStatus { place, version: name, ..Default::default() };
                Look::Held
            }
        }
    }

    /// Checks a version as `validate` does.
    fn judge(&self, version: &ConfigVersion) -> Result<(), String> {
        let effective = load(&self.origin, version, &self.environment).map_err(|error| error.to_string())?;
        let findings = (self.check)(&effective.config).map_err(|error| format!("{error:#}"))?;
        if findings.is_empty() {
            return Ok(());
        }
        let mut shown: Vec<String> = findings.iter().take(CONFIG_FINDINGS_SHOWN).cloned().collect();
        if let Some(more @ 1..) = findings.len().checked_sub(CONFIG_FINDINGS_SHOWN) {
            shown.push(format!("and {more} more faults"));
        }
        Err(shown.join("; "))
    }

    /// No version came. Logged once for each reason.
    fn none_came(&self, why: String) -> Look {
        let mut status = self.status.lock();
        let why = format!("{} gives no configuration: {why}", self.origin);
        if status.unreachable.as_ref() != Some(&why) {
            tracing::warn!(why, "the configuration stays as it is");
            status.unreachable = Some(why);
        }
        Look::Unchanged
    }

    /// The place has a version that is known by its ETag.
    fn known(&self, tag: &str) -> Look {
        let mut status = self.status.lock();
        status.unreachable = None;
        if status.refused.as_ref().is_some_and(|refused| refused.version.tag == tag) {
            return Look::Refused;
        }
        status.refused = None;
        status.from_kept = false;
        Look::Unchanged
    }

    /// The place has the text that holds, maybe under another name.
    fn known_again(&self, version: ConfigVersion) -> Look {
        let mut status = self.status.lock();
        status.version = version.name();
        (status.unreachable, status.refused, status.from_kept) = (None, None, false);
        *self.held.lock() = Arc::new(version);
        Look::Unchanged
    }
}

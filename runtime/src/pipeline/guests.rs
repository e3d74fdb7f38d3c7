//! Guests: opened for the gateway and for verbs, and what is said of their changes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{kept, settings};
use crate::admin::guests::{Answer, GuestControl, Refusal};
use crate::cases::DryRunCases;
use crate::config::{Config, ConfigError, Current};
use crate::decode::{DecodeHost, StateStore};
use crate::domain::guest_path::RouteKey;
use crate::domain::limits::GUEST_CHANGES_RATE;
use crate::domain::rate::TokenBucket;
use crate::domain::state::Image;
use crate::rollout::{GuestStore, Persistence, RolloutError, RolloutEvent, folder};
use crate::spool::Spool;

/// The gateway's guests, with what it keeps of them and what they keep, and the thread that judges new
/// ones.
///
/// # Errors
/// The folder cannot be read, or the host gives no sandbox.
pub fn open(current: &Current, state: &Image) -> Result<Arc<GuestStore>, ConfigError> {
    let config = &*current.get();
    let (guests, events) = open_with(current, StateStore::of(state))?;
    log_changes(&events);
    let guests = Arc::new(guests);
    guests.start_workers().map_err(|error| refused(config, error.into()))?;
    Ok(guests)
}

/// As `open`, without the thread: for a verb while no gateway runs.
///
/// # Errors
/// As `open`.
pub fn open_kept(current: &Current) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    open_with(current, Arc::default())
}

fn open_with(
    current: &Current,
    state: Arc<StateStore>,
) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    let config = &*current.get();
    let data = settings::guests_data(config);
    let mut persistence = settings::without_persistence(config);
    persistence.compiler.cache = Some(data.join("cache"));
    persistence.data = Some(data);
    persistence.read_only = false;
    persistence.cases = Some(Arc::new(DryRunCases(current.clone())));
    open_store(config, state, persistence)
}

/// The guests that a gateway would serve: what is refused or rolled back is not what lies in the
/// folder. Changes nothing.
///
/// # Errors
/// As `open`.
pub fn as_the_gateway_would(config: &Config) -> Result<GuestStore, ConfigError> {
    let mut persistence = settings::without_persistence(config);
    persistence.data = Some(settings::guests_data(config));
    open_store(config, Arc::default(), persistence).map(|(guests, _)| guests)
}

/// What lies in the folder, and whether it may serve. Changes nothing.
///
/// # Errors
/// As `open`.
pub fn check(config: &Config) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    open_store(config, Arc::default(), settings::without_persistence(config))
}

fn open_store(
    config: &Config,
    state: Arc<StateStore>,
    persistence: Persistence,
) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    let host =
        DecodeHost::new(settings::decode(config), state).map_err(|error| refused(config, error.into()))?;
    GuestStore::open(Path::new(&config.guests.dir), persistence, Arc::new(host))
        .map_err(|error| refused(config, error))
}

fn refused(config: &Config, error: RolloutError) -> ConfigError {
    ConfigError::value("guests.dir", &config.guests.dir, format!("a guests folder: {error}"))
}

/// Says what has changed to the operator.
pub fn log_changes(changes: &[RolloutEvent]) {
    for change in changes {
        match change {
            RolloutEvent::Serves { tenant, message_type, guest, replaced: None } => {
                tracing::info!(tenant, message_type, guest, "a guest serves");
            }
            RolloutEvent::Serves { tenant, message_type, guest, replaced: Some(replaced) } => {
                tracing::info!(tenant, message_type, guest, replaced, "a guest was replaced");
            }
            RolloutEvent::Refused { tenant, message_type, why } => {
                tracing::warn!(tenant, message_type, why, "a guest may not serve; what served goes on");
            }
            RolloutEvent::RolledBack { tenant, message_type, guest, why } => {
                tracing::warn!(tenant, message_type, guest, why, "the version before serves again");
            }
            RolloutEvent::Gone { tenant, message_type } => {
                tracing::info!(tenant, message_type, "a guest is gone")
            }
        }
    }
}

/// What the admin side may do with guests.
pub struct Control {
    guests: Arc<GuestStore>,
    spool: Spool,
    began: Instant,
    /// Changes, by the tenant's folder; only of those who brought a token.
    buckets: Mutex<HashMap<String, TokenBucket>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub fn new(guests: Arc<GuestStore>, spool: Spool) -> Self {
        Self { guests, spool, began: Instant::now(), buckets: Mutex::default() }
    }

    /// The place of a change, if its tenant has not made too many.
    fn place_to_change(&self, tenant: &str, message_type: &str) -> Result<RouteKey, Refusal> {
        let place = place(tenant, message_type)?;
        let now_s = self.began.elapsed().as_secs_f64();
        let mut buckets = self.buckets.lock();
        let bucket =
            buckets.entry(tenant.to_owned()).or_insert_with(|| TokenBucket::full(GUEST_CHANGES_RATE, now_s));
        if bucket.take(GUEST_CHANGES_RATE, now_s) {
            return Ok(place);
        }
        let message = format!("at most {} changes a second", GUEST_CHANGES_RATE.per_s);
        Err(Refusal { status: 429, code: "RATE_LIMITED", message })
    }
}

/// Names of a folder and a file, as the guests folder has them.
///
/// # Errors
/// They are none.
pub fn place(tenant: &str, message_type: &str) -> Result<RouteKey, Refusal> {
    let place = (tenant.to_owned(), message_type.to_owned());
    if folder::is_place(&place) {
        return Ok(place);
    }
    let message = format!(
        "{tenant:?}/{message_type:?} is no place in the guests folder: names are percent-encoded outside \
         [A-Za-z0-9-_.], a leading _ or . too; beside them there are _default/ and _any"
    );
    Err(Refusal { status: 400, code: "BAD_NAME", message })
}

/// What a fault means to the caller.
pub fn refusal(error: &RolloutError) -> Refusal {
    let (status, code) = match error {
        RolloutError::NotThere => (404, "NO_SUCH_GUEST"),
        RolloutError::NoPrevious => (409, "NO_PREVIOUS_VERSION"),
        RolloutError::TooLarge { .. } | RolloutError::NeedsLarge { .. } => (413, "TOO_LARGE"),
        error if error.is_ours() => (500, "NOT_DONE"),
        _ => (422, "MAY_NOT_SERVE"),
    };
    Refusal { status, code, message: error.to_string() }
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect("it is JSON")
}

impl GuestControl for Control {
    fn list(&self, tenant: &str) -> Answer {
        let guests = self.guests.list().into_iter().filter(|guest| guest.tenant == tenant);
        Ok(json!({"guests": guests.map(|guest| value(&guest)).collect::<Vec<_>>()}))
    }

    fn history(&self, tenant: &str, message_type: &str) -> Answer {
        let versions = self.guests.history(&place(tenant, message_type)?);
        let versions = versions.ok_or_else(|| refusal(&RolloutError::NotThere))?;
        Ok(json!({"tenant": tenant, "type": message_type, "versions": versions}))
    }

    fn log(&self, tenant: &str, message_type: &str) -> Answer {
        let log = self.guests.log(&place(tenant, message_type)?);
        let (lines, dropped) = log.ok_or_else(|| refusal(&RolloutError::NotThere))?;
        Ok(json!({"tenant": tenant, "type": message_type, "lines": lines, "dropped": dropped}))
    }

    fn component_bytes_max(&self, tenant: &str, message_type: &str) -> u64 {
        self.guests.component_bytes_max(&(tenant.to_owned(), message_type.to_owned()))
    }

    fn state(&self, tenant: &str, message_type: &str, partition: Option<&str>) -> Answer {
        kept::show(&self.spool.state(), tenant, message_type, partition)
    }

    async fn put(&self, tenant: &str, message_type: &str, component: Vec<u8>, who: &str) -> Answer {
        let place = self.place_to_change(tenant, message_type)?;
        let (answer, judged) = tokio::sync::oneshot::channel();
        let answer = Box::new(move |judged| {
            let _ = answer.send(judged);
        });
        if !self.guests.put(place, component, who.to_owned(), answer) {
            let message = "too many components wait for their checks; try again".to_owned();
            return Err(Refusal { status: 503, code: "BUSY", message });
        }
        match judged.await {
            Ok(Ok(put)) => {
                let mut shown = json!({"tenant": tenant, "type": message_type});
                shown.as_object_mut().expect("an object").extend(
                    value(&put).as_object().expect("an object").iter().map(|(k, v)| (k.clone(), v.clone())),
                );
                Ok(shown)
            }
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => {
                let message = "the gateway stops".to_owned();
                Err(Refusal { status: 503, code: "BUSY", message })
            }
        }
    }

    async fn roll_back(&self, tenant: &str, message_type: &str, who: &str) -> Answer {
        let place = self.place_to_change(tenant, message_type)?;
        let (guests, who) = (self.guests.clone(), who.to_owned());
        let back = off_the_task(move || guests.roll_back(&place, &who)).await?;
        Ok(
            json!({"tenant": tenant, "type": message_type, "guest": back.guest, "digest": back.digest, "from": back.from}),
        )
    }

    async fn remove(&self, tenant: &str, message_type: &str, _who: &str) -> Answer {
        let place = self.place_to_change(tenant, message_type)?;
        let guests = self.guests.clone();
        off_the_task(move || guests.remove(&place)).await?;
        Ok(json!({"tenant": tenant, "type": message_type, "state": "gone"}))
    }
}

/// Runs what waits for a disk where no task waits behind it.
async fn off_the_task<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RolloutError> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refusal(&error)),
        Err(error) => Err(Refusal { status: 500, code: "NOT_DONE", message: error.to_string() }),
    }
}

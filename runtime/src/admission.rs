//! Which messages are let in: size, topic, rate, and who sent them.
//!
//! The checks come in the order that users script against, and the first that fails names the
//! reason. One function judges (`Admission::judge`), for the stream and for `explain` alike.

mod settings;
mod judge;
mod authenticate;
mod credentials;
pub mod envelope;
pub mod cache;
pub mod buckets;
pub mod registry;
pub mod parking;
pub mod waiting;
pub mod callers;
pub mod connect;
pub mod resolver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::domain::activity::Activity;
use crate::domain::books::{Account, Books, Outcome};
use crate::domain::device_hash::{DeviceHash, DeviceHasher};
use crate::domain::ids::DeviceId;
use crate::domain::line::identity_tags;
use crate::domain::message::{Admitted, Device, Received, Refused, Tenant};
use crate::domain::parked::Parking;
use crate::domain::reason::Reason;
use crate::domain::slot::Slot;
use crate::domain::tenant::table::Tenants;
use crate::domain::topic::TopicPlaces;
use authenticate::Ask;
use buckets::Buckets;
use cache::AuthCache;
use callers::Callers;
pub use credentials::Credentials;
pub use judge::{Judged, Question, Refusal};
use judge::{Limit, Stop, admit, question, refuse};
use parking::NoParking;
use registry::Registry;
pub use settings::AdmissionSettings;
use settings::Live;
use waiting::{Added, Held, Waiting};

/// A message that had passed admission, with the identity that was found then.
#[derive(Debug)]
pub struct Passed {
    pub topic: String,
    pub payload: Bytes,
    pub received_ns: i64,
    pub tenant: String,
    pub device: String,
    pub site: String,
    pub slot: Slot,
}

/// The gate. Shared by all sources.
#[derive(Debug)]
pub struct Admission {
    settings: AdmissionSettings,
    registry: Registry,
    books: Arc<Books>,
    cache: AuthCache,
    buckets: Buckets,
    tenant_buckets: Buckets,
    tenants: Arc<Tenants>,
    /// `Tenants::missed` as it was when the cache was cleared last.
    tenants_missed: AtomicU64,
    devices: DeviceHasher,
    started: Instant,
    registry_generation: AtomicU64,
    live: RwLock<Live>,
    waiting: Waiting,
    /// Devices that connect and wait for the registry.
    callers: Callers,
    /// Counts messages that had left the flow to wait, and come back.
    activity: Option<Arc<Activity>>,
}

impl Admission {
    pub fn new(settings: AdmissionSettings, registry: Registry, tenants: Arc<Tenants>) -> Self {
        let cache = AuthCache::new(settings.cache_ttl_s, settings.cache_entries_max);
        let live = Live { payload_bytes_max: settings.payload_bytes_max as i64, rate: settings.rate };
        Self {
            cache: match registry {
                Registry::Postgres(_) => cache.with_jitter(),
                Registry::File(_) | Registry::Open(_) => cache,
            },
            live: RwLock::new(live),
            waiting: Waiting::new(Arc::new(NoParking)),
            callers: Callers::default(),
            activity: None,
            buckets: Buckets::default(),
            tenant_buckets: Buckets::default(),
            tenants_missed: AtomicU64::new(tenants.missed()),
            devices: DeviceHasher::random(),
            started: Instant::now(),
            registry_generation: AtomicU64::new(registry.generation()),
            settings,
            registry,
            books: tenants.books().clone(),
            tenants,
        }
    }

    /// Parts devices by a hash that outlives the process.
    pub fn with_devices(self, devices: DeviceHasher) -> Self {
        Self { devices, ..self }
    }

    /// Has messages counted in `activity` again that waited for the registry, and go on.
    pub fn with_activity(self, activity: Arc<Activity>) -> Self {
        Self { activity: Some(activity), ..self }
    }

    /// Has messages parked that wait for the registry for too long.
    pub fn with_parking(self, parking: Arc<dyn Parking>) -> Self {
        Self { waiting: Waiting::new(parking), ..self }
    }

    pub fn cache(&self) -> &AuthCache {
        &self.cache
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What was believed of devices is asked anew when the registry has changed; called about once
    /// a second.
    pub fn follow_registry(&self) {
        let now = self.registry.generation();
        if self.registry_generation.swap(now, Ordering::AcqRel) != now {
            self.cache.clear();
        }
    }

    /// The session was away for so long: what comes now was sent over all that time, and is no
    /// burst.
    pub fn grant_backlog(&self, away_s: f64) {
        self.buckets.grant_backlog(away_s, self.now_s());
        self.tenant_buckets.grant_backlog(away_s, self.now_s());
    }

    fn now_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The tenant and the device that a topic names.
    pub fn device_of<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        let places = self.settings.template.matches(topic)?;
        Some((&topic[places.tenant], &topic[places.device]))
    }

    /// The tenant that a topic names.
    pub fn tenant_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        self.device_of(topic).map(|(tenant, _)| tenant)
    }

    /// Judges what one read of a source gave, and counts it. Messages whose device the registry must
    /// be asked about first wait here, and go on by the resolver.
    pub fn admit(&self, messages: Vec<Received>) -> (Vec<Admitted>, Vec<Refused>) {
        let limit = Limit::Take(self.now_s());
        let settings = self.snapshot();
        let mut admitted = Vec::with_capacity(messages.len());
        let mut refused = Vec::new();
        // Messages of one tenant beside each other are counted together.
        let mut counting: Option<(Arc<Account>, u64)> = None;
        for message in messages {
            let judged = self.judge_at(&settings, question(&message), Ask::Registry, limit);
            let account = self.account_of(&message.topic, &judged);
            match &mut counting {
                Some((counted, count)) if Arc::ptr_eq(counted, &account) => *count += 1,
                _ => {
                    if let Some((counted, count)) = counting.replace((account.clone(), 1)) {
                        counted.receive(count);
                    }
                }
            }
            match judged {
                Ok(judged) => admitted.push(admit(message, judged)),
                Err(Stop::Refused(refusal)) => refused.push(self.refuse(message, refusal, account)),
                Err(Stop::Cold(places)) => {
                    // Counted before it waits: it may go on at once.
                    if let Some((counted, count)) = counting.take() {
                        counted.receive(count);
                    }
                    self.wait(message, &places, account);
                }
            }
        }
        if let Some((counted, count)) = counting {
            counted.receive(count);
        }
        (admitted, refused)
    }

    /// Judges a message that admission had refused, and counts it. It takes no rate token: the
    /// device sent it long ago. `None`: it waits for the registry, and goes on by itself.
    ///
    /// # Errors
    /// The message, when it is refused again.
    pub fn admit_again(&self, message: Received) -> Result<Option<Admitted>, Box<Refused>> {
        let judged = self.judge_at(&self.snapshot(), question(&message), Ask::Registry, Limit::Off);
        let account = self.account_of(&message.topic, &judged);
        account.receive(1);
        match judged {
            Ok(judged) => Ok(Some(admit(message, judged))),
            Err(Stop::Refused(refusal)) => Err(Box::new(self.refuse(message, refusal, account))),
            Err(Stop::Cold(places)) => {
                self.wait(message, &places, account);
                Ok(None)
            }
        }
    }

    /// Takes up a message that had passed admission, and counts it: nobody is asked again, and it
    /// takes no rate token.
    ///
    /// # Errors
    /// The message, when the topic template no longer finds a type in its topic.
    pub fn readmit(&self, message: Passed) -> Result<Admitted, Box<Refused>> {
        let tenant = self.known_tenant(&message.tenant);
        tenant.account.receive(1);
        let affinity = self.device_hash(&message.tenant, &message.device);
        let admitted = Admitted {
            message_type: 0..0,
            topic: message.topic,
            payload: message.payload,
            received_ns: message.received_ns,
            tenant,
            device: Arc::new(make_device(&message.device, &message.site, affinity)),
            slot: message.slot,
        };
        match self.settings.template.read(&admitted.topic) {
            Ok(places) => Ok(Admitted { message_type: places.message_type, ..admitted }),
            Err(error) => Err(Box::new(admitted.refused(Reason::BadTopicFormat, error.to_string(), None))),
        }
    }

    /// A tenant that had passed admission.
    pub fn known_tenant(&self, name: &str) -> Arc<Tenant> {
        let tenant = self.tenants.get(name);
        tenant.account.note_admitted();
        tenant
    }

    /// The account that a judged message is counted in.
    fn account_of(&self, topic: &str, judged: &Result<Judged, Stop>) -> Arc<Account> {
        match judged {
            Ok(judged) => {
                judged.tenant.account.note_admitted();
                judged.tenant.account.clone()
            }
            Err(Stop::Refused(Refusal { places: Some(places), .. }) | Stop::Cold(places)) => {
                self.books.of_stranger(&topic[places.tenant.clone()])
            }
            Err(Stop::Refused(_)) => self.books.none().clone(),
        }
    }

    /// Turns a message away, and has the registry's database told of it.
    fn refuse(&self, message: Received, refusal: Refusal, account: Arc<Account>) -> Refused {
        let message_type = refusal.places.as_ref().map(|places| places.message_type.clone());
        let refused = refuse(message, refusal, account);
        if let Registry::Postgres(registry) = &self.registry {
            registry.rejects.note(&refused, message_type.map(|place| &refused.topic[place]));
        }
        refused
    }

    /// Lets a message wait for the registry.
    fn wait(&self, message: Received, places: &TopicPlaces, account: Arc<Account>) {
        let topic = message.topic.clone();
        let (tenant, device) = (&topic[places.tenant.clone()], &topic[places.device.clone()]);
        let key = self.device_key(tenant, device);
        let mut held = Held { message, account, was_parked: false, since: Instant::now() };
        // What waits is not on its way: lines behind it must not wait for it.
        drop(held.message.slot.take_in_flight());
        if let Added::NoRoom(held) = self.waiting.add(key, tenant, device, held) {
            self.turn_away(*held);
        }
    }

    /// There is no room for a message to wait: it is not acknowledged, so that its sender sends it
    /// again; where nobody would, it is dropped.
    fn turn_away(&self, held: Held) {
        if held.message.slot.comes_again() {
            held.account.abandon(1);
        } else {
            held.message.slot.settle(Outcome::Dropped, &held.account);
        }
    }

    /// Whether messages wait for an answer that is about to come.
    pub fn awaits_answers(&self) -> bool {
        match &self.registry {
            Registry::Postgres(registry) => !registry.is_down() && self.waiting.has_unparked(),
            Registry::File(_) | Registry::Open(_) => false,
        }
    }

    fn tenant_key(&self, tenant: &str) -> u64 {
        self.device_key(tenant, "")
    }

    pub fn device_hash(&self, tenant: &str, device: &str) -> DeviceHash {
        self.devices.hash(tenant, device)
    }

    /// The key of a device in maps.
    pub fn device_key(&self, tenant: &str, device: &str) -> u64 {
        self.device_hash(tenant, device).key()
    }

    /// The tenant of an admitted message. `counted` is false where nothing may change.
    fn tenant(&self, name: &str, counted: bool) -> Arc<Tenant> {
        if counted { self.tenants.get(name) } else { self.tenants.uncounted(name) }
    }
}

fn make_device(device: &str, site: &str, affinity: DeviceHash) -> Device {
    Device {
        id: DeviceId::new(device),
        site: site.to_owned(),
        identity_tags: identity_tags(device, site).map_err(|fault| fault.to_string()),
        affinity,
    }
}

#[cfg(test)]
mod tests;

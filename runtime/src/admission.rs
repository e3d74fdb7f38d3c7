//! Which messages are let in: size, topic, rate, and who sent them.
//!
//! The checks come in the order that users script against, and the first that fails names the
//! reason. One function judges (`Admission::judge`), for the stream and for `explain` alike.

pub mod envelope;
pub mod cache;
pub mod buckets;
pub mod rates;
pub mod registry;
pub mod parking;
pub mod waiting;
pub mod callers;
pub mod connect;
pub mod resolver;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use crate::domain::activity::Activity;
use crate::domain::books::{Account, Books, Outcome};
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::limits;
use crate::domain::line::identity_tags;
use crate::domain::message::{Admitted, Device, Received, Refused, Tenant, Via};
use crate::domain::rate::Rate;
use crate::domain::reason::Reason;
use crate::domain::slot::Slot;
use crate::domain::tenancy::{Tenancy, TenantRules};
use crate::domain::topic::{TopicPlaces, TopicTemplate};
use buckets::Buckets;
use cache::{AuthCache, CachedDevice};
use callers::Callers;
use envelope::{Envelope, Fault, Value};
use parking::{NoParking, Parking};
use rates::TenantRates;
use registry::postgres::knobs::Knobs;
use registry::{Registry, Row, TokenHash};
use waiting::{Added, Held, Waiting};

/// Who vouches for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// `site_id` and `provision_token` in the JSON payload.
    Envelope,
    /// Whoever could publish there was allowed to.
    Broker,
    /// The device proved who it is when it connected to the listener.
    Listener,
}

/// What admission is told by the operator.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    pub template: TopicTemplate,
    pub payload_bytes_max: usize,
    /// What sources keep whole: a settings table can raise the ceiling no further.
    pub payload_bytes_kept: usize,
    /// None: no limit.
    pub rate: Option<Rate>,
    pub credentials: Credentials,
    /// Message types with credentials of their own.
    pub credentials_of_type: HashMap<String, Credentials>,
    pub require_token: bool,
    pub cache_ttl_s: f64,
    pub cache_entries_max: usize,
    pub tenancy: Tenancy,
    pub tenant_rates: TenantRates,
}

/// A message that passed: who sent it.
#[derive(Debug)]
pub struct Judged {
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    pub places: TopicPlaces,
}

/// A message that did not pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
    /// Where in the topic tenant and device stand, where it is readable.
    pub places: Option<TopicPlaces>,
}

/// What is judged of a message.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// The size on the wire, which may be more than is at hand.
    pub payload_bytes: usize,
    pub via: Via,
}

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

/// Whom a message's device is looked up with.
#[derive(Clone, Debug)]
enum Ask<'a> {
    /// The cache, then the registry.
    Registry,
    /// The same, of a message that was parked: it stands in front of those that wait.
    TakenUp,
    /// A row that stands in for the registry's answer.
    Row(Option<Row>),
    /// What the registry has answered.
    Device(&'a CachedDevice),
}

/// What the rate limit is to do with a message.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Nothing.
    Off,
    /// Take a token, at this time.
    Take(f64),
    /// A token was taken when the message came.
    Taken(f64),
}

/// Why a message goes no further now.
#[derive(Debug)]
enum Stop {
    Refused(Refusal),
    /// The registry must be asked first.
    Cold(TopicPlaces),
}

/// Why a device was not found good.
enum Turn {
    Refuse(Reason, String),
    Wait,
}

impl From<(Reason, String)> for Turn {
    fn from((reason, detail): (Reason, String)) -> Self {
        Self::Refuse(reason, detail)
    }
}

/// What may change while the gateway runs.
#[derive(Debug)]
struct Live {
    payload_bytes_max: i64,
    rate: Option<Rate>,
    tenant_rates: TenantRates,
}

/// What holds for one message.
#[derive(Clone, Copy, Debug)]
struct Holds {
    payload_bytes_max: i64,
    /// Of its device, and of all devices of its tenant together.
    rate: Option<Rate>,
    tenant_rate: Option<Rate>,
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
    tenancy: RwLock<Tenancy>,
    tenants: DashMap<TenantId, Arc<Tenant>, foldhash::fast::RandomState>,
    /// Seeded at random: nobody can name devices that share another's bucket.
    hasher: foldhash::fast::RandomState,
    started: Instant,
    registry_generation: AtomicU64,
    live: RwLock<Live>,
    waiting: Waiting,
    /// Devices that connect and wait for the registry.
    callers: Callers,
    /// Told of messages that leave the flow to wait, and come back.
    activity: Option<Arc<Activity>>,
}

impl Admission {
    pub fn new(settings: AdmissionSettings, registry: Registry, books: Arc<Books>) -> Self {
        let cache = AuthCache::new(settings.cache_ttl_s, settings.cache_entries_max);
        let live = Live {
            payload_bytes_max: settings.payload_bytes_max as i64,
            rate: settings.rate,
            tenant_rates: settings.tenant_rates.clone(),
        };
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
            tenancy: RwLock::new(settings.tenancy.clone()),
            tenants: DashMap::default(),
            hasher: foldhash::fast::RandomState::default(),
            started: Instant::now(),
            registry_generation: AtomicU64::new(registry.generation()),
            settings,
            registry,
            books,
        }
    }

    /// Tells `activity` of messages that wait for the registry, and go on.
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

    /// Turns the knobs of a settings table; what it does not name is as configured.
    pub fn turn(&self, knobs: &Knobs) {
        let configured = &self.settings;
        let kept = configured.payload_bytes_kept as i64;
        let wanted = knobs.payload_bytes_max.unwrap_or(configured.payload_bytes_max as i64);
        let rate = match (knobs.rate_per_s, knobs.burst) {
            (None, None) => configured.rate,
            (per_s, burst) => Some(Rate {
                per_s: per_s.or(configured.rate.map(|rate| rate.per_s)).unwrap_or(5.0),
                burst: burst.or(configured.rate.map(|rate| rate.burst)).unwrap_or(20.0),
            }),
        };
        let payload_bytes_max = wanted.min(kept);
        let was = {
            let mut live = self.live.write();
            let payload_bytes_max = std::mem::replace(&mut live.payload_bytes_max, payload_bytes_max);
            (payload_bytes_max, std::mem::replace(&mut live.rate, rate))
        };
        // Debug text and not equality: a rate may be NaN.
        if format!("{was:?}") != format!("{:?}", (payload_bytes_max, rate)) {
            tracing::info!(payload_bytes_max, ?rate, "settings were changed by the registry's table");
            if wanted > kept {
                tracing::warn!(wanted, kept, "MAX_PAYLOAD_BYTES is over what is kept of a payload");
            }
        }
    }

    /// From now on these hold for tenants; also for those that are known.
    pub fn set_tenants(&self, tenancy: Tenancy, tenant_rates: TenantRates) {
        self.live.write().tenant_rates = tenant_rates;
        *self.tenancy.write() = tenancy;
        let tenancy = self.tenancy.read();
        for tenant in &self.tenants {
            tenant.set_rules(tenancy.rules_of(tenant.key().as_str()));
        }
        if self.tenants.len() >= limits::TENANTS_MAX {
            // Tenants beyond those that are kept stand only beside their devices.
            self.cache.clear();
        }
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
        let mut admitted = Vec::with_capacity(messages.len());
        let mut refused = Vec::new();
        // Messages of one tenant beside each other are counted together.
        let mut counting: Option<(Arc<Account>, u64)> = None;
        for message in messages {
            let judged = self.judge_at(question(&message), Ask::Registry, limit);
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
        let judged = self.judge_at(question(&message), Ask::Registry, Limit::Off);
        let account = self.account_of(&message.topic, &judged);
        account.receive(1);
        match judged {
            Ok(judged) => Ok(Some(admit(message, judged))),
            Err(Stop::Refused(refusal)) => Err(Box::new(self.refuse(message, refusal, account))),
            Err(Stop::Cold(places)) => {
                if let Some(activity) = &self.activity {
                    activity.receive(1);
                }
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
        let key = self.device_key(&message.tenant, &message.device);
        let admitted = Admitted {
            message_type: 0..0,
            topic: message.topic,
            payload: message.payload,
            received_ns: message.received_ns,
            tenant,
            device: Arc::new(make_device(&message.device, &message.site, key)),
            slot: message.slot,
        };
        match self.settings.template.matches(&admitted.topic) {
            Some(places) => Ok(Admitted { message_type: places.message_type, ..admitted }),
            None => {
                let detail = self.topic_detail();
                Err(Box::new(admitted.refused(Reason::BadTopicFormat, detail, None)))
            }
        }
    }

    /// A tenant that had passed admission.
    pub fn known_tenant(&self, name: &str) -> Arc<Tenant> {
        let tenant = self.tenant(name, true);
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

    fn topic_detail(&self) -> String {
        format!("the topic is not of the form {}", self.settings.template.as_str())
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
        let held = Held { message, account, was_parked: false, since: Instant::now() };
        // What waits is not on its way: lines behind it must not wait for it.
        if let Some(activity) = &self.activity {
            activity.passed(1);
        }
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

    /// What would become of a message. No rate limit, nothing is counted. `row` stands in for the
    /// registry's answer; without it a device that would have to be asked about is refused as
    /// `RegistryUnavailable`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn judge(&self, question: Question<'_>, row: Option<Option<Row>>) -> Result<Judged, Refusal> {
        let ask = row.map_or(Ask::Registry, Ask::Row);
        self.judge_at(question, ask, Limit::Off).map_err(|stop| match stop {
            Stop::Refused(refusal) => refusal,
            Stop::Cold(places) => Refusal {
                reason: Reason::RegistryUnavailable,
                detail: "the registry was not asked".into(),
                places: Some(places),
            },
        })
    }

    fn judge_at(&self, question: Question<'_>, ask: Ask<'_>, limit: Limit) -> Result<Judged, Stop> {
        let refuse = |reason, detail, places| Err(Stop::Refused(Refusal { reason, detail, places }));
        let places = self.settings.template.matches(question.topic);
        let holds = self.holds_for(places.as_ref().map(|places| &question.topic[places.tenant.clone()]));
        if question.payload_bytes as i64 > holds.payload_bytes_max {
            let (bytes, most) = (question.payload_bytes, holds.payload_bytes_max);
            let detail = format!("the payload has {bytes} bytes; at most {most} are taken");
            return refuse(Reason::PayloadTooLarge, detail, places);
        }
        let Some(places) = places else {
            return refuse(Reason::BadTopicFormat, self.topic_detail(), None);
        };
        let tenant = &question.topic[places.tenant.clone()];
        let device = &question.topic[places.device.clone()];
        let key = self.device_key(tenant, device);
        if let (Limit::Take(now_s), Some(rate)) = (limit, holds.rate)
            && !self.buckets.take(key, rate, now_s)
        {
            return refuse(Reason::RateLimited, rate_detail(rate), Some(places));
        }
        match self.authenticate(&question, &places, tenant, device, key, ask) {
            Ok((known, device)) => {
                // Only what passes takes from the tenant's bucket: nobody can silence it from outside.
                if let (Limit::Take(now_s) | Limit::Taken(now_s), Some(rate)) = (limit, holds.tenant_rate)
                    && !self.tenant_buckets.take(self.tenant_key(tenant), rate, now_s)
                {
                    if let Some(rate) = holds.rate {
                        self.buckets.give_back(key, rate, now_s);
                    }
                    let detail = format!("all devices of the tenant together: {}", rate_detail(rate));
                    return refuse(Reason::RateLimited, detail, Some(places));
                }
                Ok(Judged { tenant: known, device, places })
            }
            Err(Turn::Wait) => Err(Stop::Cold(places)),
            Err(Turn::Refuse(reason, detail)) => {
                // Only what passes takes from the device's bucket; what is refused takes from a
                // second one, so that nobody can silence a device under its name.
                if let (Limit::Take(now_s) | Limit::Taken(now_s), Some(rate)) = (limit, holds.rate)
                    && !self.buckets.refuse(key, rate, now_s)
                {
                    return refuse(Reason::RateLimited, rate_detail(rate), Some(places));
                }
                refuse(reason, detail, Some(places))
            }
        }
    }

    fn holds_for(&self, tenant: Option<&str>) -> Holds {
        let live = self.live.read();
        let (rate, tenant_rate) = match tenant {
            Some(tenant) => live.tenant_rates.of(tenant, live.rate),
            None => (live.rate, None),
        };
        Holds { payload_bytes_max: live.payload_bytes_max, rate, tenant_rate }
    }

    fn tenant_key(&self, tenant: &str) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.hasher.build_hasher();
        hasher.write(tenant.as_bytes());
        hasher.finish()
    }

    /// A hash of tenant and device, as `Device::affinity`.
    pub fn device_key(&self, tenant: &str, device: &str) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.hasher.build_hasher();
        hasher.write(tenant.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(device.as_bytes());
        hasher.finish()
    }

    fn credentials_of(&self, message_type: &str, via: Via) -> Credentials {
        let set = self.credentials_set(message_type);
        match (set, via) {
            // A device that connects straight to us has shown no broker anything, and what a broker
            // brings has proved nothing to us.
            (Credentials::Broker, Via::Broker) | (Credentials::Listener, Via::Proven) => set,
            _ => Credentials::Envelope,
        }
    }

    fn credentials_set(&self, message_type: &str) -> Credentials {
        self.settings.credentials_of_type.get(message_type).copied().unwrap_or(self.settings.credentials)
    }

    /// The way by which a message of this topic comes in where its type's credentials are of use: what
    /// is asked of it there is what the operator meant.
    pub fn usual_via(&self, topic: &str) -> Via {
        let places = self.settings.template.matches(topic);
        match places.map(|places| self.credentials_set(&topic[places.message_type])) {
            Some(Credentials::Listener) => Via::Proven,
            _ => Via::Broker,
        }
    }

    fn authenticate(
        &self,
        question: &Question<'_>,
        places: &TopicPlaces,
        tenant: &str,
        device: &str,
        key: u64,
        ask: Ask<'_>,
    ) -> Result<(Arc<Tenant>, Arc<Device>), Turn> {
        let message_type = &question.topic[places.message_type.clone()];
        let envelope = match self.credentials_of(message_type, question.via) {
            Credentials::Broker | Credentials::Listener => None,
            Credentials::Envelope => {
                let envelope = Envelope::read(question.payload).map_err(|fault| {
                    // A tenant that no database can be named after has that to mend first: what
                    // stands in tenant_id can never matter.
                    match self.rules_of(tenant).database {
                        Err(why) if matches!(fault, Fault::Type("tenant_id", _)) => {
                            (Reason::BadDatabaseName, why)
                        }
                        _ => (Reason::BadPayload, fault.to_string()),
                    }
                })?;
                if let Value::Text(named) = &envelope.tenant_id
                    && named != tenant
                {
                    let detail = format!("tenant_id is {named:?}, and the topic names {tenant:?}");
                    return Err(Turn::Refuse(Reason::TenantMismatch, detail));
                }
                if let Value::Missing = envelope.site_id {
                    let detail = "site_id is missing: expected the site that the device is registered for";
                    return Err(Turn::Refuse(Reason::MissingSiteId, detail.into()));
                }
                Some(envelope)
            }
        };
        let (envelope, require_token) = (envelope.as_ref(), self.settings.require_token);
        let (found, cached) = match ask {
            Ask::Device(known) => {
                check_device(known, envelope, require_token)?;
                return Ok((known.tenant.clone(), known.device.clone()));
            }
            Ask::Row(row) => (row, false),
            Ask::Registry if self.must_follow(key) => return Err(Turn::Wait),
            Ask::Registry | Ask::TakenUp => match &self.registry {
                Registry::Open(tenants) => return Ok(self.open_device(tenants, tenant, device, envelope)?),
                Registry::Postgres(registry) => {
                    return self.authenticate_cached(registry, tenant, device, key, envelope);
                }
                Registry::File(_) => {
                    if let Some(known) = self.cache.get(key, tenant, device, self.now_s()) {
                        check_device(&known, envelope, require_token)?;
                        return Ok((known.tenant.clone(), known.device.clone()));
                    }
                    (self.registry.lookup(tenant, device), true)
                }
            },
        };
        let Some(found) = found else { return Err(unregistered(tenant, device).into()) };
        let known = self.know(tenant, device, key, found, cached);
        let verdict = check_device(&known, envelope, require_token);
        let identity = (known.tenant.clone(), known.device.clone());
        if cached {
            self.cache.insert(key, known, self.now_s());
        }
        Ok(verdict.map(|()| identity)?)
    }

    /// Whether others of its device wait in front of a message. Where nothing is asked over a network
    /// nothing waits but what another registry had parked, and that is not followed.
    fn must_follow(&self, key: u64) -> bool {
        matches!(self.registry, Registry::Postgres(_)) && self.waiting.holds(key)
    }

    /// Where the registry is asked over a network: by what is known of it, or not yet.
    fn authenticate_cached(
        &self,
        registry: &registry::postgres::Postgres,
        tenant: &str,
        device: &str,
        key: u64,
        envelope: Option<&Envelope<'_>>,
    ) -> Result<(Arc<Tenant>, Arc<Device>), Turn> {
        let now_s = self.now_s();
        if let Some(known) = self.cache.get(key, tenant, device, now_s) {
            check_device(&known, envelope, self.settings.require_token)?;
            return Ok((known.tenant.clone(), known.device.clone()));
        }
        if self.cache.is_absent(key, tenant, device, now_s) {
            return Err(unregistered(tenant, device).into());
        }
        if registry.is_down()
            && let Some(known) = self.cache.stale(key, tenant, device, now_s, registry.settings.stale_max_s)
        {
            self.cache.note_stale(1);
            check_device(&known, envelope, self.settings.require_token)?;
            return Ok((known.tenant.clone(), known.device.clone()));
        }
        Err(Turn::Wait)
    }

    /// Makes of a registry row what is kept of a device.
    fn know(&self, tenant: &str, device: &str, key: u64, row: Row, counted: bool) -> CachedDevice {
        CachedDevice {
            tenant: self.tenant(tenant, counted),
            device: Arc::new(make_device(device, &row.site_id, key)),
            active: row.status == "ACTIVE",
            status: row.status,
            site: row.site_id,
            token: row.token,
        }
    }

    fn open_device(
        &self,
        tenants: &[String],
        tenant: &str,
        device: &str,
        envelope: Option<&Envelope<'_>>,
    ) -> Result<(Arc<Tenant>, Arc<Device>), (Reason, String)> {
        if !tenants.iter().any(|open| open == tenant) {
            let detail = format!("the tenant {tenant:?} is not among registry.open_tenants");
            return Err((Reason::UnregisteredDevice, detail));
        }
        let site = match envelope.map(|envelope| &envelope.site_id) {
            Some(Value::Text(site)) => site.as_ref(),
            _ => "",
        };
        let key = self.device_key(tenant, device);
        Ok((self.tenant(tenant, true), Arc::new(make_device(device, site, key))))
    }

    /// The tenant of an admitted message. `counted` is false where nothing may change.
    fn tenant(&self, name: &str, counted: bool) -> Arc<Tenant> {
        if let Some(tenant) = self.tenants.get(name) {
            return tenant.clone();
        }
        let id = TenantId::new(name);
        let account = if counted { self.books.of_known(name) } else { Arc::new(Account::new(id.clone())) };
        // Held until it is known: whoever changes the terms after that finds it there.
        let tenancy = self.tenancy.read();
        let tenant = Arc::new(Tenant::new(id.clone(), account, tenancy.rules_of(name)));
        if counted && self.tenants.len() < limits::TENANTS_MAX {
            self.tenants.insert(id, tenant.clone());
        }
        tenant
    }

    fn rules_of(&self, tenant: &str) -> TenantRules {
        self.tenancy.read().rules_of(tenant)
    }
}

fn make_device(device: &str, site: &str, affinity: u64) -> Device {
    Device {
        id: DeviceId::new(device),
        site: site.to_owned(),
        identity_tags: identity_tags(device, site).map_err(|fault| fault.to_string()),
        affinity,
    }
}

fn unregistered(tenant: &str, device: &str) -> (Reason, String) {
    let detail = format!("there is no device {device:?} of tenant {tenant:?} in the registry");
    (Reason::UnregisteredDevice, detail)
}

fn rate_detail(rate: Rate) -> String {
    format!("more than {} messages a second beyond a burst of {}", rate.per_s, rate.burst)
}

/// The checks that need the registry's row, in their order.
fn check_device(
    known: &CachedDevice,
    envelope: Option<&Envelope<'_>>,
    require_token: bool,
) -> Result<(), (Reason, String)> {
    if !known.active {
        let detail = format!("the device's status is {:?}, not \"ACTIVE\"", known.status);
        return Err((Reason::DeviceRevoked, detail));
    }
    let Some(envelope) = envelope else { return Ok(()) };
    if let Value::Text(site) = &envelope.site_id
        && *site != known.site
    {
        let detail = format!("site_id is {site:?}, and the device is registered for another site");
        return Err((Reason::SiteMismatch, detail));
    }
    if !require_token {
        return Ok(());
    }
    if known.token == TokenHash::NotSet {
        let detail = "the registry has no token for this device: set one before it may send";
        return Err((Reason::TokenNotSet, detail.into()));
    }
    let Value::Text(token) = &envelope.provision_token else {
        let detail = "provision_token is missing: expected the token that the device was provisioned with";
        return Err((Reason::TokenMissing, detail.into()));
    };
    if !known.token.matches(&Sha256::digest(token.as_bytes()).into()) {
        let detail = "provision_token is not the one that the device was provisioned with";
        return Err((Reason::TokenInvalid, detail.into()));
    }
    Ok(())
}

fn question(message: &Received) -> Question<'_> {
    Question {
        topic: &message.topic,
        payload: &message.payload,
        payload_bytes: message.payload_bytes,
        via: message.via,
    }
}

fn admit(message: Received, judged: Judged) -> Admitted {
    Admitted {
        message_type: judged.places.message_type,
        topic: message.topic,
        payload: message.payload,
        received_ns: message.received_ns,
        tenant: judged.tenant,
        device: judged.device,
        slot: message.slot,
    }
}

fn refuse(message: Received, refusal: Refusal, account: Arc<Account>) -> Refused {
    let part = |range: &std::ops::Range<usize>| &message.topic[range.clone()];
    let (tenant, device) = match &refusal.places {
        Some(places) => (Some(part(&places.tenant).into()), Some(part(&places.device).into())),
        None => (None, None),
    };
    Refused {
        tenant,
        device,
        topic: message.topic,
        payload: message.payload,
        payload_bytes: message.payload_bytes,
        received_ns: message.received_ns,
        reason: refusal.reason,
        detail: refusal.detail,
        guest: None,
        site: None,
        via: Some(message.via),
        account,
        slot: message.slot,
    }
}

#[cfg(test)]
mod tests;

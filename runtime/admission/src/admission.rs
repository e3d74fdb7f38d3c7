use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::auth_cache::AuthCache;
use crate::outcome::{CheckError, LookupSource, NotAdmitted, RateLimitMode, Sender, admit, question, refuse};
use crate::pending_connects::PendingConnects;
use crate::pending_messages::{Enqueued, PendingMessage, PendingMessages};
use crate::rate_limits::DeviceRateLimits;
use crate::registry::Registry;
use crate::settings::{AdmissionSettings, LiveLimits};
use tidegate_core::ack::in_flight::InFlight;
use tidegate_core::ack::token::AckToken;
use tidegate_core::books::{Account, Books, Outcome};
use tidegate_core::device::make_device;
use tidegate_core::device_hash::{DeviceHash, DeviceHasher};
use tidegate_core::message::{Admitted, Received, RefusedMessage};
use tidegate_core::parked::{NoParkingStore, ParkingStore};
use tidegate_core::reason::Reason;
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::table::Tenants;
use tidegate_core::topic::TopicFields;

/// A message that had passed admission, with the identity that was found then.
#[derive(Debug)]
pub struct ReadmittedMessage {
    pub topic: String,
    pub payload: Bytes,
    pub received_ns: i64,
    pub tenant: String,
    pub device: String,
    pub site: String,
    pub token: AckToken,
}

/// The gate. Shared by all sources.
#[derive(Debug)]
pub struct Admission {
    pub(crate) settings: AdmissionSettings,
    pub(crate) registry: Registry,
    pub(crate) books: Arc<Books>,
    pub(crate) cache: AuthCache,
    pub(crate) buckets: DeviceRateLimits,
    pub(crate) tenant_buckets: DeviceRateLimits,
    pub(crate) tenants: Arc<Tenants>,
    /// `Tenants::missed` as it was when the cache was cleared last.
    pub(crate) tenants_missed: AtomicU64,
    devices: DeviceHasher,
    started: Instant,
    registry_generation: AtomicU64,
    pub(crate) live: RwLock<LiveLimits>,
    pub(crate) waiting: PendingMessages,
    /// Devices that connect and wait for the registry.
    pub(crate) callers: PendingConnects,
    /// Counts messages that had left the flow to wait, and come back.
    pub(crate) activity: Option<Arc<InFlight>>,
}

impl Admission {
    pub fn new(settings: AdmissionSettings, registry: Registry, tenants: Arc<Tenants>) -> Self {
        let cache = AuthCache::new(settings.cache_ttl_s, settings.cache_entries_max);
        let live = LiveLimits { payload_bytes_max: settings.payload_bytes_max as i64, rate: settings.rate };
        Self {
            cache: match registry {
                Registry::Postgres(_) => cache.with_jitter(),
                Registry::File(_) | Registry::Open(_) => cache,
            },
            live: RwLock::new(live),
            waiting: PendingMessages::new(Arc::new(NoParkingStore)),
            callers: PendingConnects::default(),
            activity: None,
            buckets: DeviceRateLimits::default(),
            tenant_buckets: DeviceRateLimits::default(),
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
    pub fn with_activity(self, activity: Arc<InFlight>) -> Self {
        Self { activity: Some(activity), ..self }
    }

    /// Has messages parked that wait for the registry for too long.
    pub fn with_parking(self, parking: Arc<dyn ParkingStore>) -> Self {
        Self { waiting: PendingMessages::new(parking), ..self }
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

    pub(crate) fn now_s(&self) -> f64 {
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
    pub fn admit(&self, messages: Vec<Received>) -> (Vec<Admitted>, Vec<RefusedMessage>) {
        let limit = RateLimitMode::Take(self.now_s());
        let settings = self.snapshot();
        let mut admitted = Vec::with_capacity(messages.len());
        let mut refused = Vec::new();
        // Messages of one tenant beside each other are counted together.
        let mut counting: Option<(Arc<Account>, u64)> = None;
        for message in messages {
            let judged = self.check_at(&settings, question(&message), LookupSource::Registry, limit);
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
                Err(NotAdmitted::Refused(refusal)) => refused.push(self.refuse(message, refusal, account)),
                Err(NotAdmitted::Cold(places)) => {
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
    pub fn readmit_refused(&self, message: Received) -> Result<Option<Admitted>, Box<RefusedMessage>> {
        let judged =
            self.check_at(&self.snapshot(), question(&message), LookupSource::Registry, RateLimitMode::Off);
        let account = self.account_of(&message.topic, &judged);
        account.receive(1);
        match judged {
            Ok(judged) => Ok(Some(admit(message, judged))),
            Err(NotAdmitted::Refused(refusal)) => Err(Box::new(self.refuse(message, refusal, account))),
            Err(NotAdmitted::Cold(places)) => {
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
    pub fn readmit(&self, message: ReadmittedMessage) -> Result<Admitted, Box<RefusedMessage>> {
        let tenant = self.known_tenant(&message.tenant);
        tenant.account.receive(1);
        let affinity = self.device_hash(&message.tenant, &message.device);
        let mut admitted = Admitted::from_quarantine(
            message.topic,
            message.payload,
            message.received_ns,
            tenant,
            Arc::new(make_device(&message.device, &message.site, affinity)),
            message.token,
        );
        match self.settings.template.read(&admitted.topic) {
            Ok(places) => {
                admitted.message_type = places.message_type;
                Ok(admitted)
            }
            Err(error) => Err(Box::new(admitted.refused(Reason::BadTopicFormat, error.to_string(), None))),
        }
    }

    /// A tenant that had passed admission.
    pub fn known_tenant(&self, name: &str) -> Arc<Tenant> {
        let tenant = self.tenants.get(name);
        tenant.account.mark_admitted();
        tenant
    }

    /// The account that a judged message is counted in.
    pub(crate) fn account_of(&self, topic: &str, judged: &Result<Sender, NotAdmitted>) -> Arc<Account> {
        match judged {
            Ok(judged) => {
                judged.tenant.account.mark_admitted();
                judged.tenant.account.clone()
            }
            Err(
                NotAdmitted::Refused(CheckError { places: Some(places), .. }) | NotAdmitted::Cold(places),
            ) => self.books.of_stranger(&topic[places.tenant.clone()]),
            Err(NotAdmitted::Refused(_)) => self.books.none().clone(),
        }
    }

    /// Turns a message away, and has the registry's database told of it.
    pub(crate) fn refuse(
        &self,
        message: Received,
        refusal: CheckError,
        account: Arc<Account>,
    ) -> RefusedMessage {
        let message_type = refusal.places.as_ref().map(|places| places.message_type.clone());
        let refused = refuse(message, refusal, account);
        if let Registry::Postgres(registry) = &self.registry {
            registry.rejects.note(&refused, message_type.map(|place| &refused.topic[place]));
        }
        refused
    }

    /// Lets a message wait for the registry.
    fn wait(&self, message: Received, places: &TopicFields, account: Arc<Account>) {
        let topic = message.topic.clone();
        let (tenant, device) = (&topic[places.tenant.clone()], &topic[places.device.clone()]);
        let key = self.device_key(tenant, device);
        let mut held = PendingMessage { message, account, was_parked: false, since: Instant::now() };
        // What waits is not on its way: lines behind it must not wait for it.
        drop(held.message.token.take_in_flight());
        if let Enqueued::NoRoom(held) = self.waiting.add(key, tenant, device, held) {
            self.give_up(*held);
        }
    }

    /// There is no room for a message to wait: it is not acknowledged, so that its sender sends it
    /// again; where nobody would, it is dropped.
    pub(crate) fn give_up(&self, held: PendingMessage) {
        if held.message.token.is_redelivered() {
            held.account.abandon(1);
        } else {
            held.message.token.settle(Outcome::Dropped, &held.account);
        }
    }

    /// Whether messages wait for an answer that is about to come.
    pub fn awaits_answers(&self) -> bool {
        match &self.registry {
            Registry::Postgres(registry) => !registry.is_down() && self.waiting.has_unparked(),
            Registry::File(_) | Registry::Open(_) => false,
        }
    }

    pub(crate) fn tenant_key(&self, tenant: &str) -> u64 {
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
    pub(crate) fn tenant(&self, name: &str, counted: bool) -> Arc<Tenant> {
        if counted { self.tenants.get(name) } else { self.tenants.uncounted(name) }
    }
}

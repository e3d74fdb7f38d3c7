//! The checks' shared state, and the entrance of messages: new, refused before, or admitted before.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;

use crate::auth_cache::AuthCache;
use crate::credentials::CredentialSource;
use crate::envelope::content;
use crate::limits::{PENDING_OVERHEAD_BYTES, REGISTRY_CHANGES_QUEUED_MAX};
use crate::outcome::{CheckError, LookupSource, NotAdmitted, RateLimitMode, Sender};
use crate::pending_connects::PendingConnects;
use crate::pending_messages::{Enqueued, PendingMessage, PendingMessages};
use crate::proven_tokens::ProvenTokens;
use crate::rate_limits::DeviceRateLimits;
use crate::registry::Registry;
use crate::registry::postgres::app_settings::AppSettings;
use crate::settings::{AdmissionSettings, LiveLimits, Snapshot};
use tidegate_core::ack::in_flight::InFlight;
use tidegate_core::ack::token::AckToken;
use tidegate_core::books::{Account, Books};
use tidegate_core::device::make_device;
use tidegate_core::device_hash::{DeviceHash, DeviceHasher};
use tidegate_core::identity::RegistryChange;
use tidegate_core::message::{Admitted, Received, RefusedMessage, Via};
use tidegate_core::parked::{NoParkingStore, ParkingStore};
use tidegate_core::reason::Reason;
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::OverBudget;
use tidegate_core::tenant::table::Tenants;
use tidegate_core::topic::TopicFields;
use tidegate_json::TapeWriter;

/// A message that was admitted before, with the identity that was found then.
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

/// The messages of one read that were checked, in order. Some wait for the registry, and are not here.
#[derive(Debug, Default)]
pub struct AdmitResult {
    pub admitted: Vec<Admitted>,
    pub refused: Vec<RefusedMessage>,
    /// The first message over a rate and all behind it, not counted yet. They are to come again after
    /// `wait`.
    pub over_rate: Vec<Received>,
    pub wait: Duration,
}

/// Messages of one read that are not counted yet: those of one account are counted together.
#[derive(Default)]
struct ReceivedCounts(Vec<(Arc<Account>, u64)>);

/// Accounts that are looked through for each message.
const COUNTED_ACCOUNTS_MAX: usize = 16;

impl ReceivedCounts {
    fn add(&mut self, account: &Arc<Account>) {
        match self.0.iter_mut().find(|(counted, _)| Arc::ptr_eq(counted, account)) {
            Some((_, count)) => *count += 1,
            None => {
                if self.0.len() == COUNTED_ACCOUNTS_MAX {
                    self.flush();
                }
                self.0.push((account.clone(), 1));
            }
        }
    }

    fn flush(&mut self) {
        for (account, count) in self.0.drain(..) {
            account.receive(count);
        }
    }
}

impl Drop for ReceivedCounts {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Admission of messages and of devices that connect. All sources share one.
#[derive(Debug)]
pub struct Admission {
    pub(crate) settings: AdmissionSettings,
    pub(crate) registry: Registry,
    pub(crate) books: Arc<Books>,
    pub(crate) cache: AuthCache,
    pub(crate) proven_tokens: ProvenTokens,
    pub(crate) device_rates: DeviceRateLimits,
    pub(crate) tenant_rates: DeviceRateLimits,
    pub(crate) tenants: Arc<Tenants>,
    /// `Tenants::missed` as it was when the cache was cleared last.
    pub(crate) tenants_missed: AtomicU64,
    devices: DeviceHasher,
    started: Instant,
    registry_generation: AtomicU64,
    pub(crate) live: RwLock<LiveLimits>,
    /// Messages that wait for the registry.
    pub(crate) pending: PendingMessages,
    /// Devices that connect and wait for the registry.
    pub(crate) connects: PendingConnects,
    pub(crate) changes: broadcast::Sender<RegistryChange>,
    /// The count that a message joins again when it has waited.
    pub(crate) in_flight: Option<Arc<InFlight>>,
    over_budget_logged: Mutex<Option<Instant>>,
}

/// The least time between two warnings about messages that find no room while they wait.
const OVER_BUDGET_LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Admission {
    pub fn new(settings: AdmissionSettings, registry: Registry, tenants: Arc<Tenants>) -> Self {
        let cache = AuthCache::new(settings.cache_ttl_s, settings.cache_entries_max);
        Self {
            cache: match registry {
                Registry::Postgres(_) => cache.with_jitter(),
                Registry::File(_) | Registry::Open(_) => cache.with_few_taken(),
            },
            live: RwLock::new(LiveLimits::new(&settings)),
            pending: PendingMessages::new(Arc::new(NoParkingStore)),
            connects: PendingConnects::default(),
            changes: broadcast::Sender::new(REGISTRY_CHANGES_QUEUED_MAX),
            in_flight: None,
            over_budget_logged: Mutex::new(None),
            proven_tokens: ProvenTokens::default(),
            device_rates: DeviceRateLimits::default(),
            tenant_rates: DeviceRateLimits::default(),
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

    /// Sets the device hash, whose seed outlives the process.
    pub fn with_devices(self, devices: DeviceHasher) -> Self {
        Self { devices, ..self }
    }

    /// Counts messages in `in_flight` again when they have waited for the registry.
    pub fn with_in_flight(self, in_flight: Arc<InFlight>) -> Self {
        Self { in_flight: Some(in_flight), ..self }
    }

    /// Sets the store for messages that wait too long for the registry.
    pub fn with_parking(self, parking: Arc<dyn ParkingStore>) -> Self {
        Self { pending: PendingMessages::new(parking), ..self }
    }

    pub fn cache(&self) -> &AuthCache {
        &self.cache
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Clears the cache if the registry has changed; called about once a second.
    pub fn follow_registry(&self) {
        let now = self.registry.generation();
        if self.registry_generation.swap(now, Ordering::AcqRel) != now {
            self.cache.clear();
            self.proven_tokens.forget_all();
            self.publish_change(RegistryChange::All);
        }
    }

    /// Forgets a device that has changed, and its token.
    pub(crate) fn forget_device(&self, key: u64) {
        if let Some(hash) = self.cache.forget(key) {
            self.proven_tokens.forget(&hash);
        }
    }

    /// Tells of a change of the registry.
    pub(crate) fn publish_change(&self, change: RegistryChange) {
        // Without a listener nobody wants to know.
        let _ = self.changes.send(change);
    }

    /// Raises the buckets after the session was offline for so long: the backlog was sent over all
    /// that time, and is no burst.
    pub fn grant_backlog(&self, offline_s: f64) {
        self.device_rates.grant_backlog(offline_s, self.now_s());
        self.tenant_rates.grant_backlog(offline_s, self.now_s());
    }

    pub(crate) fn now_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The names that a topic gives; `None` if it names nobody.
    pub fn names_of(&self, topic: &str) -> Option<TopicFields> {
        self.settings.topics.matches(topic)
    }

    /// Checks the messages of one read of a source, and counts them. A message whose device the
    /// registry must be asked about waits; the look-up task submits it later.
    pub fn admit(&self, messages: Vec<Received>) -> AdmitResult {
        let limit = RateLimitMode::Take(self.now_s());
        let settings = self.snapshot();
        let mut result =
            AdmitResult { admitted: Vec::with_capacity(messages.len()), ..AdmitResult::default() };
        let mut counting = ReceivedCounts::default();
        let mut tape = TapeWriter::default();
        let mut messages = messages.into_iter();
        while let Some(message) = messages.next() {
            let checked = self.check_at(&settings, &message, LookupSource::Registry, limit, &mut tape);
            if let Err(NotAdmitted::OverRate(wait_s)) = checked {
                result.wait = Duration::from_secs_f64(wait_s);
                result.over_rate.push(message);
                result.over_rate.extend(messages);
                break;
            }
            if let Ok(sender) = checked {
                sender.tenant.account.mark_admitted();
                counting.add(&sender.tenant.account);
                result.admitted.push(sender.admit(message));
                continue;
            }
            let account = self.account_of(&message.topic, &checked);
            counting.add(&account);
            match checked {
                Err(NotAdmitted::Refused(error)) => {
                    result.refused.push(self.refuse(message, error, account));
                }
                Err(NotAdmitted::Cold { fields, over_rate }) => {
                    // Counted before it waits: the look-up task may submit it at once.
                    counting.flush();
                    self.enqueue_lookup(message, &fields, account, over_rate);
                }
                Ok(_) | Err(NotAdmitted::OverRate(_)) => unreachable!("handled above"),
            }
        }
        result
    }

    /// Checks a message that admission had refused, and counts it. It takes no rate token: the
    /// device sent it long ago. `None`: it waits, and the look-up task submits it later.
    ///
    /// # Errors
    /// The message, when it is refused again.
    pub fn readmit_refused(&self, message: Received) -> Result<Option<Admitted>, Box<RefusedMessage>> {
        let (settings, mut tape) = (self.snapshot(), TapeWriter::default());
        let checked =
            self.check_at(&settings, &message, LookupSource::Registry, RateLimitMode::Off, &mut tape);
        let account = self.account_of(&message.topic, &checked);
        account.receive(1);
        match checked {
            Ok(sender) => Ok(Some(sender.admit(message))),
            Err(NotAdmitted::Refused(error)) => Err(Box::new(self.refuse(message, error, account))),
            Err(NotAdmitted::Cold { fields, .. }) => {
                self.enqueue_lookup(message, &fields, account, false);
                Ok(None)
            }
            Err(NotAdmitted::OverRate(_)) => unreachable!("no rate holds for it"),
        }
    }

    /// Admits a message that was admitted before, and counts it. The registry is not asked, and no
    /// rate token is taken.
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
        let fields = match self.settings.topics.read(&admitted.topic) {
            Ok(fields) => fields,
            Err(error) => {
                return Err(Box::new(admitted.refused(Reason::BadTopicFormat, error.to_string(), None)));
            }
        };
        let template = self.settings.topics.template(&fields);
        admitted.message_type = fields.message_type;
        match content(template, &admitted.topic, &admitted.payload) {
            Ok(content) => Ok(admitted.with_content(content)),
            Err(error) => Err(Box::new(admitted.refused(Reason::BadEnvelope, error.to_string(), None))),
        }
    }

    /// The tenant of a message that was admitted before.
    pub fn known_tenant(&self, name: &str) -> Arc<Tenant> {
        let tenant = self.tenants.get(name);
        tenant.account.mark_admitted();
        tenant
    }

    /// The account that a checked message is counted in.
    pub(crate) fn account_of(&self, topic: &str, checked: &Result<Sender, NotAdmitted>) -> Arc<Account> {
        match checked {
            Ok(sender) => {
                sender.tenant.account.mark_admitted();
                sender.tenant.account.clone()
            }
            Err(
                NotAdmitted::Refused(CheckError { fields: Some(fields), .. })
                | NotAdmitted::Cold { fields, .. },
            ) => self.books.of_stranger(fields.tenant.of(topic)),
            Err(NotAdmitted::Refused(_) | NotAdmitted::OverRate(_)) => self.books.none().clone(),
        }
    }

    /// Refuses a message, and records that for the registry's database.
    pub(crate) fn refuse(
        &self,
        message: Received,
        error: CheckError,
        account: Arc<Account>,
    ) -> RefusedMessage {
        let message_type = error.fields.as_ref().map(|fields| fields.message_type.clone());
        let refused = error.refuse(message, account);
        if let Registry::Postgres(registry) = &self.registry {
            registry.refusals.record(&refused, message_type.as_ref().map(|name| name.of(&refused.topic)));
        }
        refused
    }

    /// Makes a message wait for the registry, or gives it up without room.
    fn enqueue_lookup(
        &self,
        message: Received,
        fields: &TopicFields,
        account: Arc<Account>,
        over_rate: bool,
    ) {
        let topic = message.topic.clone();
        let (tenant, device) = (fields.tenant.of(&topic), fields.device.of(&topic));
        let key = self.device_key(tenant, device);
        let bytes = (topic.len() + message.payload.len()) as u64 + PENDING_OVERHEAD_BYTES;
        let budget = self.tenants.budgets_of(tenant).memory;
        let charge = match budget.try_charge(BudgetKind::Pending, bytes) {
            Ok(charge) => charge,
            Err(over) => {
                self.log_over_budget(tenant, &over);
                // A broker's session waits as a whole: given up, its message would come again at once.
                let waits = message.token.is_redelivered() && !message.token.is_from_device();
                if !waits {
                    let pending = PendingMessage {
                        message,
                        account,
                        was_parked: false,
                        over_rate,
                        since: Instant::now(),
                        charge: None,
                    };
                    return self.give_up(pending);
                }
                budget.charge(BudgetKind::Pending, bytes)
            }
        };
        let (since, charge) = (Instant::now(), Some(charge));
        let mut pending = PendingMessage { message, account, was_parked: false, over_rate, since, charge };
        // A message that waits is not in flight: lines behind it must not wait for it.
        drop(pending.message.token.take_in_flight());
        if let Enqueued::NoRoom(pending) = self.pending.add(key, tenant, device, pending) {
            self.give_up(*pending);
        }
    }

    /// Logs that a tenant's messages find no room while they wait for the registry; once a minute.
    fn log_over_budget(&self, tenant: &str, over: &OverBudget) {
        let now = Instant::now();
        let mut logged = self.over_budget_logged.lock();
        if logged.is_none_or(|logged| now.duration_since(logged) >= OVER_BUDGET_LOG_INTERVAL) {
            *logged = Some(now);
            tracing::warn!(tenant, %over, "messages wait for the registry: devices must send the rest again");
        }
    }

    /// Gives up a message that found no room. It is not acknowledged, so that its sender sends it
    /// again; a message that nobody would send again is dropped.
    pub(crate) fn give_up(&self, pending: PendingMessage) {
        if pending.message.token.is_redelivered() {
            pending.account.abandon(1);
        } else {
            pending.message.token.drop_for(Reason::RegistryUnavailable, &pending.account);
        }
    }

    /// True if messages wait for an answer that is about to come.
    pub fn awaits_answers(&self) -> bool {
        match &self.registry {
            Registry::Postgres(registry) => !registry.is_down() && self.pending.has_unparked(),
            Registry::File(_) | Registry::Open(_) => false,
        }
    }

    /// The way of a message for which the credentials of its type are of use: `explain` assumes it.
    pub fn usual_via(&self, topic: &str) -> Via {
        self.live.read().credentials.usual_via(&self.settings.topics, topic)
    }

    /// Applies the table app_settings; a key that is not there is as configured.
    pub fn apply_app_settings(&self, table: &AppSettings) {
        self.live.write().apply(&self.settings, table);
    }

    /// Applies other message types with credentials of their own, from the next group of messages on.
    pub fn set_credentials_of_types(&self, of_type: HashMap<String, CredentialSource>) {
        self.live.write().set_credentials_of_types(of_type);
    }

    /// The limits of this moment. Clears the cache if a tenant missed a change of its settings.
    pub(super) fn snapshot(&self) -> Snapshot {
        let missed = self.tenants.missed();
        if self.tenants_missed.load(Ordering::Relaxed) != missed
            && self.tenants_missed.swap(missed, Ordering::AcqRel) != missed
        {
            self.cache.clear();
        }
        let policies = self.tenants.policies();
        Snapshot::new(&self.live.read(), policies)
    }

    /// The key of a tenant in the rate limits.
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

    /// The tenant of an admitted message. A `counted` of false changes nothing (`explain`).
    pub(crate) fn tenant(&self, name: &str, counted: bool) -> Arc<Tenant> {
        if counted { self.tenants.get(name) } else { self.tenants.uncounted(name) }
    }
}

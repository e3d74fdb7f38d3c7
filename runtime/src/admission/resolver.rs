//! The tasks of a PostgreSQL registry: look-ups for messages that wait, changes that are told,
//! settings, refusals. They end when their `JoinSet` is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, sleep, timeout};
use tokio_postgres::Client;

use super::cache::{Asked, CachedDevice};
use super::envelope::{Envelope, Value};
use super::registry::postgres::devices::Desk;
use super::registry::postgres::link::PgError;
use super::registry::postgres::tenants::TenantRow;
use super::registry::postgres::{Postgres, Task, knobs, rejects, schema, tenants};
use super::registry::{Registry, Row};
use super::waiting::{Asking, Held};
use super::{Admission, Ask, Limit, Stop, admit, question};
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::limits;
use crate::domain::message::{Admitted, Refused};
use crate::domain::reason::Reason;
use crate::domain::worker::vital;

/// Where messages go on that had waited.
pub trait Onward: Send + Sync + 'static {
    /// Takes judged messages, in their order. It may wait for room.
    fn go_on(&self, admitted: Vec<Admitted>, refused: Vec<Refused>) -> impl Future<Output = ()> + Send;
}

/// Starts the tasks where the registry is one that needs them.
pub fn start<O: Onward>(admission: &Arc<Admission>, onward: &Arc<O>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Registry::Postgres(registry) = &admission.registry else { return tasks };
    let resolver =
        Resolver { admission: admission.clone(), registry: registry.clone(), onward: onward.clone() };
    for number in 0..limits::LOOKUPS_AT_ONCE {
        tasks.spawn(vital("registry-lookup", resolver.clone().look_up(number == 0)));
    }
    tasks.spawn(vital("registry-connects", resolver.clone().answer_callers()));
    tasks.spawn(vital("registry-parking", park_overdue(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-listen", listen(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-settings", follow_settings(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-rejects", write_rejects(registry.clone())));
    tasks
}

/// Reads the settings table before the first message is judged. What cannot be read now is read
/// later: nothing waits for a registry that is down.
pub async fn first_settings(admission: &Admission) {
    let Registry::Postgres(registry) = &admission.registry else { return };
    match read_settings(registry, &mut None).await {
        Ok((knobs, rows)) => take_up_settings(admission, registry, &knobs, rows),
        Err(error) => registry.note_fault(Task::Settings, &error),
    }
}

/// Knobs hold though the settings of tenants cannot be read.
fn take_up_settings(
    admission: &Admission,
    registry: &Postgres,
    knobs: &knobs::Knobs,
    rows: Result<Vec<TenantRow>, PgError>,
) {
    registry.rejects.store_events(knobs.stores_events());
    admission.turn(knobs);
    match rows {
        Ok(rows) => {
            registry.note_good(Task::Settings);
            registry.tenants.tell(rows);
        }
        Err(error) => registry.note_fault(Task::Settings, &error),
    }
}

/// Reads the settings of tenants before there is anything that they could hold for. `None`: the
/// registry has none, or cannot be asked now.
pub async fn first_tenants(registry: &Registry) -> Option<Vec<TenantRow>> {
    let Registry::Postgres(registry) = registry else { return None };
    match read_settings(registry, &mut None).await {
        Ok((_, Ok(rows))) => {
            registry.tenants.note_asked();
            Some(rows)
        }
        Ok((_, Err(error))) | Err(error) => {
            registry.note_fault(Task::Settings, &error);
            None
        }
    }
}

/// Writes the last refusals before a stop.
pub async fn finish(admission: &Admission) {
    if let Registry::Postgres(registry) = &admission.registry
        && (!registry.rejects.is_empty() || registry.rejects.is_writing())
    {
        let last = async {
            let client = registry.server.connect().await?;
            registry.rejects.write(&registry.server, &client).await
        };
        match timeout(rejects::LAST_WRITE, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last refusals are not in the database"),
            Err(_) => tracing::warn!("the last refusals are not in the database: it gave no answer"),
        }
    }
}

const RETRY_MIN: Duration = Duration::from_millis(limits::REGISTRY_RETRY_MIN_MS);
const CALLERS_PATIENCE: Duration = Duration::from_secs(limits::CALLERS_PATIENCE_S);
const PROBE: Duration = Duration::from_millis(limits::REGISTRY_PROBE_MS);

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PROBE)
}

struct Resolver<O> {
    admission: Arc<Admission>,
    registry: Arc<Postgres>,
    onward: Arc<O>,
}

impl<O> Clone for Resolver<O> {
    fn clone(&self) -> Self {
        Self {
            admission: self.admission.clone(),
            registry: self.registry.clone(),
            onward: self.onward.clone(),
        }
    }
}

impl<O: Onward> Resolver<O> {
    /// Asks about the devices of waiting messages, for ever. The first of these tasks also asks
    /// whether the registry is well while there is nothing else to ask, and alone while it is not.
    async fn look_up(self, first: bool) {
        let mut desk = None;
        let mut pause = RETRY_MIN;
        let waiting = &self.admission.waiting;
        loop {
            let asking = if first && self.registry.is_down() {
                waiting.take(limits::LOOKUP_KEYS_MAX)
            } else if self.registry.is_down() {
                sleep(RETRY_MIN).await;
                continue;
            } else {
                timeout(PROBE, waiting.next(limits::LOOKUP_KEYS_MAX)).await.unwrap_or_default()
            };
            if asking.is_empty() && !first {
                continue;
            }
            let asked = self.admission.cache.ask(self.admission.now_s());
            match self.ask(&mut desk, &asking).await {
                Ok(rows) => {
                    pause = RETRY_MIN;
                    // No message goes on before it is known what holds for its tenant.
                    if !self.registry.tenants.note_asked() {
                        self.ask_settings().await;
                    }
                    self.registry.note_good(Task::LookUp);
                    self.answer(&desk, asking, rows, asked).await;
                }
                Err(error) => {
                    desk = None;
                    self.registry.note_fault(Task::LookUp, &error);
                    self.serve_stale(&asking).await;
                    asking.iter().for_each(|asking| waiting.ask_again(asking.key));
                    sleep(pause).await;
                    pause = longer(pause);
                }
            }
        }
    }

    /// Asks about devices that connect, for ever. While the registry cannot be asked they are answered
    /// at once, by what was known: the other tasks find out when it is back.
    async fn answer_callers(self) {
        let mut desk = None;
        let (admission, callers) = (&self.admission, &self.admission.callers);
        loop {
            let asking = callers.next(limits::LOOKUP_KEYS_MAX).await;
            // Just started, or a moment's fault: whoever came in that moment need not come again.
            while self.registry.is_down() && self.registry.down_for() < CALLERS_PATIENCE {
                sleep(RETRY_MIN).await;
            }
            let asked = admission.cache.ask(admission.now_s());
            let answer = match self.registry.is_down() {
                true => None,
                false => match self.ask(&mut desk, &asking).await {
                    Ok(rows) => Some(rows),
                    Err(error) => {
                        desk = None;
                        self.registry.note_fault(Task::LookUp, &error);
                        None
                    }
                },
            };
            match answer {
                Some(rows) => {
                    for (asking, row) in asking.iter().zip(rows) {
                        let known = self.keep(asking, row, asked);
                        if callers.has_changed(asking.key) || admission.cache.is_outdated(asked) {
                            callers.ask_again(asking.key);
                        } else {
                            callers.answer(asking.key, Some(known));
                        }
                    }
                }
                None => {
                    for asking in &asking {
                        let (tenant, device) = (asking.tenant.as_str(), asking.device.as_str());
                        let (now_s, stale_max_s) = (admission.now_s(), self.registry.settings.stale_max_s);
                        let stale = admission.cache.stale(asking.key, tenant, device, now_s, stale_max_s);
                        callers.answer(asking.key, stale.map(|known| Some(known.clone())));
                    }
                }
            }
        }
    }

    async fn ask_settings(&self) {
        match read_settings(&self.registry, &mut None).await {
            Ok((knobs, rows)) => take_up_settings(&self.admission, &self.registry, &knobs, rows),
            Err(error) => self.registry.note_fault(Task::Settings, &error),
        }
    }

    async fn ask(&self, desk: &mut Option<Desk>, asking: &[Asking]) -> Result<Vec<Option<Row>>, PgError> {
        let devices: Vec<(TenantId, DeviceId)> =
            asking.iter().map(|asking| (asking.tenant.clone(), asking.device.clone())).collect();
        let server = &self.registry.server;
        let look = async {
            if let Some(open) = desk.as_ref().filter(|open| !open.is_closed()) {
                self.note_query(asking);
                match open.look_up(server, &devices).await {
                    // The connection had died while nobody looked: that is no fault of the registry.
                    Err(_) if open.is_closed() => {}
                    answer => return answer,
                }
            }
            let open = desk.insert(Desk::open(server).await?);
            self.note_query(asking);
            open.look_up(server, &devices).await
        };
        tokio::pin!(look);
        tokio::select! {
            answer = &mut look => return answer,
            () = sleep(Duration::from_millis(limits::SLOW_LOOKUP_MS)) => {}
        }
        self.serve_stale(asking).await;
        look.await
    }

    fn note_query(&self, asking: &[Asking]) {
        if !asking.is_empty() {
            self.registry.note_query();
        }
    }

    /// Lets messages go on whose devices were known before the registry could not be asked.
    async fn serve_stale(&self, asking: &[Asking]) {
        let admission = &self.admission;
        let stale_max_s = self.registry.settings.stale_max_s;
        let mut judged = Judged::default();
        for asking in asking {
            let (tenant, device) = (asking.tenant.as_str(), asking.device.as_str());
            let now_s = admission.now_s();
            let stale = admission.cache.stale(asking.key, tenant, device, now_s, stale_max_s);
            let Some(known) = stale.map(|hit| hit.clone()) else { continue };
            let messages = admission.waiting.messages(asking.key, usize::MAX);
            admission.cache.note_stale(messages.len() as u64);
            messages.into_iter().for_each(|held| judged.add(admission, held, Some(&known)));
        }
        judged.go_on(&*self.onward).await;
    }

    /// Keeps what the registry answered, and lets the messages go on that waited for it.
    async fn answer(&self, desk: &Option<Desk>, asking: Vec<Asking>, rows: Vec<Option<Row>>, asked: Asked) {
        let (admission, waiting) = (&self.admission, &self.admission.waiting);
        let provisions = self.registry.settings.auto_provision;
        let mut open: Vec<(Asking, Option<CachedDevice>)> = asking
            .into_iter()
            .zip(rows)
            .map(|(asking, row)| {
                let known = self.keep(&asking, row, asked);
                (asking, known)
            })
            .collect();
        while !open.is_empty() {
            let mut judged = Judged::default();
            let mut unknown = Vec::new();
            for (asking, known) in &open {
                // Of a device that is added now, the next message finds it there.
                let most = if known.is_none() && provisions { 1 } else { usize::MAX };
                for held in waiting.messages(asking.key, most) {
                    judged.add(admission, held, known.as_ref());
                    if let (None, true, Some(site)) = (known, provisions, judged.site_of_unregistered()) {
                        unknown.push((asking.tenant.clone(), asking.device.clone(), site));
                    }
                }
            }
            judged.go_on(&*self.onward).await;
            self.provision(desk, &unknown).await;
            open.retain(|(asking, known)| {
                let outdated = waiting.has_changed(asking.key) || admission.cache.is_outdated(asked);
                if (known.is_none() && provisions) || outdated {
                    waiting.ask_again(asking.key);
                    return false;
                }
                !waiting.finish(asking.key)
            });
        }
    }

    /// Keeps a row, unless the device has changed since it was asked for.
    fn keep(&self, asking: &Asking, row: Option<Row>, asked: Asked) -> Option<CachedDevice> {
        let (admission, key) = (&self.admission, asking.key);
        let (tenant, device) = (asking.tenant.as_str(), asking.device.as_str());
        let known = row.map(|row| admission.know(tenant, device, row, true));
        match &known {
            Some(known) => admission.cache.insert_asked(key, known.clone(), asked),
            None if self.registry.settings.auto_provision => {}
            None => {
                let told = self.registry.tells_changes();
                let ttl_s = if told { limits::ABSENT_TTL_S } else { limits::ABSENT_TTL_UNTOLD_S };
                admission.cache.insert_absent(key, tenant, device, asked, ttl_s);
            }
        }
        // Told first and forgotten then: whichever comes last, what is from before does not stay.
        if admission.waiting.has_changed(key) || admission.callers.has_changed(key) {
            admission.cache.forget(key);
        }
        known
    }

    async fn provision(&self, desk: &Option<Desk>, unknown: &[(TenantId, DeviceId, String)]) {
        let Some(desk) = desk.as_ref().filter(|_| !unknown.is_empty()) else { return };
        match desk.provision(&self.registry.server, unknown).await {
            Ok(added) => {
                self.registry.note_provisioned(added);
                tracing::info!(added, "devices were added to the registry");
            }
            Err(error) => tracing::error!(%error, "devices were not added; their next messages try again"),
        }
    }
}

/// Messages that were judged, on their way.
#[derive(Default)]
struct Judged {
    admitted: Vec<Admitted>,
    refused: Vec<Refused>,
}

impl Judged {
    fn add(&mut self, admission: &Admission, held: Held, known: Option<&CachedDevice>) {
        let Held { mut message, account, was_parked, .. } = held;
        if let Some(activity) = &admission.activity {
            message.slot.enter(activity);
        }
        let limit =
            if was_parked || message.slot.is_replay() { Limit::Off } else { Limit::Taken(admission.now_s()) };
        let ask = known.map_or(Ask::Row(None), Ask::Device);
        match admission.judge_at(&admission.snapshot(), question(&message), ask, limit) {
            Ok(judged) => {
                let own = &judged.tenant.account;
                own.note_admitted();
                if !Arc::ptr_eq(own, &account) {
                    // It was received as a stranger's.
                    own.receive(1);
                    account.withdraw(1);
                }
                self.admitted.push(admit(message, judged));
            }
            Err(Stop::Refused(refusal)) => self.refused.push(admission.refuse(message, refusal, account)),
            Err(Stop::Cold(_)) => unreachable!("the registry's answer is given"),
        }
    }

    /// The site that the message named which was refused last, if its device was unknown.
    fn site_of_unregistered(&self) -> Option<String> {
        let refused = self.refused.last().filter(|refused| refused.reason == Reason::UnregisteredDevice)?;
        Some(match Envelope::read(&refused.payload).map(|envelope| envelope.site_id) {
            Ok(Value::Text(site)) => site.into_owned(),
            _ => String::new(),
        })
    }

    async fn go_on(self, onward: &impl Onward) {
        if !self.admitted.is_empty() || !self.refused.is_empty() {
            onward.go_on(self.admitted, self.refused).await;
        }
    }
}

/// Parks what has waited for too long.
async fn park_overdue(admission: Arc<Admission>, registry: Arc<Postgres>) {
    let most = Duration::from_millis(limits::REGISTRY_WAIT_MS);
    loop {
        sleep(RETRY_MIN).await;
        let patience = if registry.down_for() >= most { Duration::ZERO } else { most };
        let (parked, left) = admission.waiting.park_overdue(patience, Instant::now());
        if parked > 0 || !left.is_empty() {
            let (reason, turned_away) = (Reason::RegistryUnavailable, left.len());
            tracing::warn!(%reason, parked, turned_away, "messages are parked until the registry is back");
        }
        left.into_iter().for_each(|held| admission.turn_away(held));
    }
}

/// Hears of changed devices. Whatever was missed while nobody listened is made good by believing
/// nothing that was cached before.
async fn listen(admission: Arc<Admission>, registry: Arc<Postgres>) {
    let mut pause = RETRY_MIN;
    loop {
        let mut heard_once = false;
        let Err(error) = hear(&admission, &registry, &mut heard_once).await;
        registry.note_fault(Task::Listen, &error);
        registry.note_telling(false);
        admission.cache.expire_all();
        pause = if heard_once { RETRY_MIN } else { longer(pause) };
        sleep(pause).await;
    }
}

async fn hear(
    admission: &Admission,
    registry: &Postgres,
    heard_once: &mut bool,
) -> Result<std::convert::Infallible, PgError> {
    let server = &registry.server;
    let (tell, mut told) = mpsc::unbounded_channel();
    let client = server.connect_hearing(Some(tell)).await?;
    let listen = format!("LISTEN {}", schema::CHANNEL);
    server.within("LISTEN", client.batch_execute(&listen)).await?;
    let tells = schema::tells_changes(server, &client).await?;
    admission.cache.expire_all();
    registry.note_telling(tells);
    registry.note_good(Task::Listen);
    if !tells {
        registry.note_wish(
            Task::Listen,
            "device_registry has no trigger that tells of changes, so they are seen after \
             registry.cache_ttl_s: run `tidegate registry init`",
        );
    }
    *heard_once = true;
    let mut ping = tokio::time::interval(PROBE);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            note = told.recv() => match note {
                Some(note) => forget(admission, &note),
                None => {
                    let why = "the connection that hears of changes has ended".into();
                    return Err(PgError::Connect { at: server.at(), why });
                }
            },
            // A peer that is gone without a word is noticed by its silence.
            _ = ping.tick() => {
                let tells = schema::tells_changes(server, &client).await?;
                if tells != registry.tells_changes() {
                    return Err(PgError::Connect { at: server.at(), why: "its trigger has changed".into() });
                }
            }
        }
    }
}

fn forget(admission: &Admission, note: &str) {
    match note.split_once('/') {
        Some((tenant, device)) => {
            let key = admission.device_key(tenant, device);
            admission.waiting.note_changed(key);
            admission.callers.note_changed(key);
            admission.cache.forget(key);
        }
        None => {
            admission.waiting.note_all_changed();
            admission.callers.note_all_changed();
            admission.cache.clear();
        }
    }
}

/// Reads the settings table again and again. While it cannot be read, they stay as they were.
async fn follow_settings(admission: Arc<Admission>, registry: Arc<Postgres>) {
    let mut client: Option<Client> = None;
    loop {
        match read_settings(&registry, &mut client).await {
            Ok((knobs, rows)) => {
                take_up_settings(&admission, &registry, &knobs, rows);
                sleep(registry.settings.settings_poll).await;
            }
            Err(error) => {
                client = None;
                registry.note_fault(Task::Settings, &error);
                sleep(registry.settings.settings_poll.min(PROBE)).await;
            }
        }
    }
}

async fn read_settings(
    registry: &Postgres,
    client: &mut Option<Client>,
) -> Result<(knobs::Knobs, Result<Vec<TenantRow>, PgError>), PgError> {
    let open = match client.take().filter(|client| !client.is_closed()) {
        Some(open) => open,
        None => registry.server.connect().await?,
    };
    let open = client.insert(open);
    let knobs = knobs::read(&registry.server, open).await?;
    Ok((knobs, tenants::read(&registry.server, open).await))
}

async fn write_rejects(registry: Arc<Postgres>) {
    let mut client: Option<Client> = None;
    let mut pause = RETRY_MIN;
    let mut dropped = 0;
    let mut said: Option<Instant> = None;
    let quiet = Duration::from_secs(limits::REFUSALS_DROPPED_SAID_EVERY_S);
    loop {
        sleep(Duration::from_millis(limits::REFUSALS_WRITTEN_EVERY_MS)).await;
        if registry.rejects.dropped() > dropped && said.is_none_or(|said| said.elapsed() >= quiet) {
            let rows = registry.rejects.dropped() - dropped;
            dropped += rows;
            said = Some(Instant::now());
            let error = registry.rejects.take_refused().unwrap_or_else(|| "there is no room".into());
            tracing::warn!(
                rows,
                error,
                "counts or rows of refusals were dropped; quarantine has the messages"
            );
        }
        if registry.rejects.is_empty() {
            continue;
        }
        match write_once(&registry, &mut client).await {
            Ok(()) => {
                registry.note_good(Task::Rejects);
                pause = RETRY_MIN;
            }
            Err(error) => {
                client = None;
                registry.note_fault(Task::Rejects, &error);
                sleep(pause).await;
                pause = longer(pause);
            }
        }
    }
}

async fn write_once(registry: &Postgres, client: &mut Option<Client>) -> Result<(), PgError> {
    let open = match client.take().filter(|client| !client.is_closed()) {
        Some(open) => open,
        None => registry.server.connect().await?,
    };
    registry.rejects.write(&registry.server, client.insert(open)).await
}

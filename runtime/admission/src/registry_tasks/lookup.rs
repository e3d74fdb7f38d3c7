use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::admission::Admission;
use crate::auth_cache::{CachedDevice, LookupStamp};
use crate::envelope::{Envelope, EnvelopeValue};
use crate::limits;
use crate::limits::{CALLERS_PATIENCE, PROBE, RETRY_MIN};
use crate::lookup_request::LookupRequest;
use crate::outcome::{LookupSource, NotAdmitted, RateLimitMode, admit, question};
use crate::pending_messages::PendingMessage;
use crate::registry::RegistryRow;
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::devices::DeviceQueries;
use crate::registry::postgres::{PostgresRegistry, RegistryTask};
use crate::registry_tasks::app_settings::{read_settings, take_up_settings};
use crate::retry::longer;
use tidegate_core::ids::{DeviceId, TenantId};
use tidegate_core::message::{Admitted, RefusedMessage};
use tidegate_core::reason::Reason;

/// Where messages go on that had waited.
pub trait AdmittedSink: Send + Sync + 'static {
    /// Takes judged messages, in their order. It may wait for room.
    fn submit(
        &self,
        admitted: Vec<Admitted>,
        refused: Vec<RefusedMessage>,
    ) -> impl Future<Output = ()> + Send;
}

pub(crate) struct LookupTask<O> {
    pub(crate) admission: Arc<Admission>,
    pub(crate) registry: Arc<PostgresRegistry>,
    pub(crate) onward: Arc<O>,
}

impl<O> Clone for LookupTask<O> {
    fn clone(&self) -> Self {
        Self {
            admission: self.admission.clone(),
            registry: self.registry.clone(),
            onward: self.onward.clone(),
        }
    }
}

impl<O: AdmittedSink> LookupTask<O> {
    /// Asks about the devices of waiting messages, for ever. The first of these tasks also asks
    /// whether the registry is well while there is nothing else to ask, and alone while it is not.
    pub(crate) async fn look_up(self, first: bool) {
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
                    self.registry.note_good(RegistryTask::LookUp);
                    self.answer(&desk, asking, rows, asked).await;
                }
                Err(error) => {
                    desk = None;
                    self.registry.note_fault(RegistryTask::LookUp, &error);
                    self.serve_stale(&asking).await;
                    asking.iter().for_each(|asking| waiting.requeue(asking.key));
                    sleep(pause).await;
                    pause = longer(pause);
                }
            }
        }
    }

    /// Asks about devices that connect, for ever. While the registry cannot be asked they are answered
    /// at once, by what was known: the other tasks find out when it is back.
    pub(crate) async fn answer_callers(self) {
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
                        self.registry.note_fault(RegistryTask::LookUp, &error);
                        None
                    }
                },
            };
            match answer {
                Some(rows) => {
                    for (asking, row) in asking.iter().zip(rows) {
                        let known = self.keep(asking, row, asked);
                        if callers.has_changed(asking.key) || admission.cache.is_outdated(asked) {
                            callers.requeue(asking.key);
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
            Err(error) => self.registry.note_fault(RegistryTask::Settings, &error),
        }
    }

    async fn ask(
        &self,
        desk: &mut Option<DeviceQueries>,
        asking: &[LookupRequest],
    ) -> Result<Vec<Option<RegistryRow>>, PgError> {
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
            let open = desk.insert(DeviceQueries::open(server).await?);
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

    fn note_query(&self, asking: &[LookupRequest]) {
        if !asking.is_empty() {
            self.registry.note_query();
        }
    }

    /// Lets messages go on whose devices were known before the registry could not be asked.
    async fn serve_stale(&self, asking: &[LookupRequest]) {
        let admission = &self.admission;
        let stale_max_s = self.registry.settings.stale_max_s;
        let mut judged = CheckedGroup::default();
        for asking in asking {
            let (tenant, device) = (asking.tenant.as_str(), asking.device.as_str());
            let now_s = admission.now_s();
            let stale = admission.cache.stale(asking.key, tenant, device, now_s, stale_max_s);
            let Some(known) = stale.map(|hit| hit.clone()) else { continue };
            let messages = admission.waiting.messages(asking.key, usize::MAX);
            admission.cache.record_stale(messages.len() as u64);
            messages.into_iter().for_each(|held| judged.add(admission, held, Some(&known)));
        }
        judged.submit(&*self.onward).await;
    }

    /// Keeps what the registry answered, and lets the messages go on that waited for it.
    async fn answer(
        &self,
        desk: &Option<DeviceQueries>,
        asking: Vec<LookupRequest>,
        rows: Vec<Option<RegistryRow>>,
        asked: LookupStamp,
    ) {
        let (admission, waiting) = (&self.admission, &self.admission.waiting);
        let provisions = self.registry.settings.auto_provision;
        let mut open: Vec<(LookupRequest, Option<CachedDevice>)> = asking
            .into_iter()
            .zip(rows)
            .map(|(asking, row)| {
                let known = self.keep(&asking, row, asked);
                (asking, known)
            })
            .collect();
        while !open.is_empty() {
            let mut judged = CheckedGroup::default();
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
            judged.submit(&*self.onward).await;
            self.provision(desk, &unknown).await;
            open.retain(|(asking, known)| {
                let outdated = waiting.has_changed(asking.key) || admission.cache.is_outdated(asked);
                if (known.is_none() && provisions) || outdated {
                    waiting.requeue(asking.key);
                    return false;
                }
                !waiting.finish(asking.key)
            });
        }
    }

    /// Keeps a row, unless the device has changed since it was asked for.
    fn keep(
        &self,
        asking: &LookupRequest,
        row: Option<RegistryRow>,
        asked: LookupStamp,
    ) -> Option<CachedDevice> {
        let (admission, key) = (&self.admission, asking.key);
        let (tenant, device) = (asking.tenant.as_str(), asking.device.as_str());
        let known = row.map(|row| admission.cache_row(tenant, device, row, true));
        match &known {
            Some(known) => admission.cache.insert_asked(key, known.clone(), asked),
            None if self.registry.settings.auto_provision => {}
            None => {
                let told = self.registry.tells_changes();
                let ttl_s = if told { limits::NEGATIVE_TTL_S } else { limits::NEGATIVE_TTL_WITHOUT_NOTIFY_S };
                admission.cache.insert_absent(key, tenant, device, asked, ttl_s);
            }
        }
        // Told first and forgotten then: whichever comes last, what is from before does not stay.
        if admission.waiting.has_changed(key) || admission.callers.has_changed(key) {
            admission.cache.forget(key);
        }
        known
    }

    async fn provision(&self, desk: &Option<DeviceQueries>, unknown: &[(TenantId, DeviceId, String)]) {
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
pub(crate) struct CheckedGroup {
    admitted: Vec<Admitted>,
    refused: Vec<RefusedMessage>,
}

impl CheckedGroup {
    fn add(&mut self, admission: &Admission, held: PendingMessage, known: Option<&CachedDevice>) {
        let PendingMessage { mut message, account, was_parked, .. } = held;
        if let Some(activity) = &admission.activity {
            message.token.enter(activity);
        }
        let limit = if was_parked || message.token.is_replay() {
            RateLimitMode::Off
        } else {
            RateLimitMode::Taken(admission.now_s())
        };
        let ask = known.map_or(LookupSource::Row(None), LookupSource::Device);
        match admission.check_at(&admission.snapshot(), question(&message), ask, limit) {
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
            Err(NotAdmitted::Refused(refusal)) => {
                self.refused.push(admission.refuse(message, refusal, account))
            }
            Err(NotAdmitted::Cold(_)) => unreachable!("the registry's answer is given"),
        }
    }

    /// The site that the message named which was refused last, if its device was unknown.
    fn site_of_unregistered(&self) -> Option<String> {
        let refused = self.refused.last().filter(|refused| refused.reason == Reason::UnregisteredDevice)?;
        Some(match Envelope::read(&refused.payload).map(|envelope| envelope.site_id) {
            Ok(EnvelopeValue::Text(site)) => site.into_owned(),
            _ => String::new(),
        })
    }

    async fn submit(self, onward: &impl AdmittedSink) {
        if !self.admitted.is_empty() || !self.refused.is_empty() {
            onward.submit(self.admitted, self.refused).await;
        }
    }
}

/// Parks what has waited for too long.
pub(crate) async fn park_overdue(admission: Arc<Admission>, registry: Arc<PostgresRegistry>) {
    let most = Duration::from_millis(limits::REGISTRY_WAIT_MS);
    loop {
        sleep(RETRY_MIN).await;
        let patience = if registry.down_for() >= most { Duration::ZERO } else { most };
        let (parked, left) = admission.waiting.park_overdue(patience, Instant::now());
        if parked > 0 || !left.is_empty() {
            let (reason, turned_away) = (Reason::RegistryUnavailable, left.len());
            tracing::warn!(%reason, parked, turned_away, "messages are parked until the registry is back");
        }
        left.into_iter().for_each(|held| admission.give_up(held));
    }
}

//! The tasks that look up devices, for messages and for connections that wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::admission::Admission;
use crate::auth_cache::{CachedDevice, LookupStamp};
use crate::backoff::Backoff;
use crate::envelope::{Envelope, EnvelopeValue};
use crate::limits;
use crate::limits::{CONNECT_LOOKUP_PATIENCE, PROBE, RETRY_MIN};
use crate::lookup_request::LookupRequest;
use crate::outcome::{LookupSource, NotAdmitted, RateLimitMode};
use crate::pending_messages::PendingMessage;
use crate::registry::RegistryRow;
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::devices::DeviceQueries;
use crate::registry::postgres::{PostgresRegistry, RegistryTask};
use crate::registry_tasks::app_settings::{apply_settings, read_settings};
use tidegate_core::ids::{DeviceId, TenantId};
use tidegate_core::message::{Admitted, RefusedMessage};
use tidegate_core::reason::Reason;
use tidegate_json::TapeWriter;

/// The next stage of messages that have waited.
pub trait AdmittedSink: Send + Sync + 'static {
    /// Takes checked messages, in their order. It may wait for room.
    fn submit(
        &self,
        admitted: Vec<Admitted>,
        refused: Vec<RefusedMessage>,
    ) -> impl Future<Output = ()> + Send;
}

/// The context of the look-up tasks.
pub(crate) struct LookupTask<S> {
    pub(crate) admission: Arc<Admission>,
    pub(crate) registry: Arc<PostgresRegistry>,
    pub(crate) sink: Arc<S>,
}

impl<S> Clone for LookupTask<S> {
    fn clone(&self) -> Self {
        Self { admission: self.admission.clone(), registry: self.registry.clone(), sink: self.sink.clone() }
    }
}

impl<S: AdmittedSink> LookupTask<S> {
    /// Looks up the devices of waiting messages, for ever. The first of these tasks also probes an idle
    /// registry, and is the only one that asks while the registry is down.
    pub(crate) async fn answer_messages(self, first: bool) {
        let mut queries = None;
        let mut backoff = Backoff::new();
        let pending = &self.admission.pending;
        loop {
            let requests = if first && self.registry.is_down() {
                pending.take(limits::LOOKUP_KEYS_MAX)
            } else if self.registry.is_down() {
                sleep(RETRY_MIN).await;
                continue;
            } else {
                timeout(PROBE, pending.next(limits::LOOKUP_KEYS_MAX)).await.unwrap_or_default()
            };
            if requests.is_empty() && !first {
                continue;
            }
            let stamp = self.admission.cache.lookup_stamp(self.admission.now_s());
            match self.query(&mut queries, &requests).await {
                Ok(rows) => {
                    backoff.reset();
                    // No message is submitted before the settings of tenants were read.
                    if !self.registry.tenant_rows.mark_asked() {
                        self.read_settings().await;
                    }
                    self.registry.record_success(RegistryTask::LookUp);
                    self.answer(&queries, requests, rows, stamp).await;
                }
                Err(error) => {
                    queries = None;
                    self.registry.record_fault(RegistryTask::LookUp, &error);
                    self.serve_stale(&requests).await;
                    requests.iter().for_each(|request| pending.requeue(request.key));
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Looks up devices that connect, for ever. While the registry is down, they are answered at once
    /// from the cache: the other tasks find out when it is back.
    pub(crate) async fn answer_connects(self) {
        let mut queries = None;
        let (admission, connects) = (&self.admission, &self.admission.connects);
        loop {
            let requests = connects.next(limits::LOOKUP_KEYS_MAX).await;
            // The start, or a short fault: devices that come meanwhile need not come again.
            while self.registry.is_down() && self.registry.down_for() < CONNECT_LOOKUP_PATIENCE {
                sleep(RETRY_MIN).await;
            }
            let stamp = admission.cache.lookup_stamp(admission.now_s());
            let answer = match self.registry.is_down() {
                true => None,
                false => match self.query(&mut queries, &requests).await {
                    Ok(rows) => Some(rows),
                    Err(error) => {
                        queries = None;
                        self.registry.record_fault(RegistryTask::LookUp, &error);
                        None
                    }
                },
            };
            match answer {
                Some(rows) => {
                    for (request, row) in requests.iter().zip(rows) {
                        let known = self.cache(request, row, stamp);
                        if connects.has_changed(request.key) || admission.cache.is_outdated(stamp) {
                            connects.requeue(request.key);
                        } else {
                            connects.answer(request.key, Some(known));
                        }
                    }
                }
                None => {
                    for request in &requests {
                        let (tenant, device) = (request.tenant.as_str(), request.device.as_str());
                        let (now_s, stale_max_s) = (admission.now_s(), self.registry.settings.stale_max_s);
                        let stale = admission.cache.stale(request.key, tenant, device, now_s, stale_max_s);
                        connects.answer(request.key, stale.map(|known| Some(known.clone())));
                    }
                }
            }
        }
    }

    /// Reads the settings tables by a connection of its own.
    async fn read_settings(&self) {
        match read_settings(&self.registry, &mut None).await {
            Ok((settings, rows)) => apply_settings(&self.admission, &self.registry, &settings, rows),
            Err(error) => self.registry.record_fault(RegistryTask::Settings, &error),
        }
    }

    /// Asks the registry, by a new connection if the old one has ended. Messages of known devices do not
    /// wait for a slow answer.
    async fn query(
        &self,
        queries: &mut Option<DeviceQueries>,
        requests: &[LookupRequest],
    ) -> Result<Vec<Option<RegistryRow>>, PgError> {
        let devices: Vec<(TenantId, DeviceId)> =
            requests.iter().map(|request| (request.tenant.clone(), request.device.clone())).collect();
        let server = &self.registry.server;
        let look = async {
            if let Some(open) = queries.as_ref().filter(|open| !open.is_closed()) {
                self.record_query(requests);
                match open.look_up(server, &devices).await {
                    // The connection had ended while it was idle: that is no fault of the registry.
                    Err(_) if open.is_closed() => {}
                    answer => return answer,
                }
            }
            let open = queries.insert(DeviceQueries::open(server).await?);
            self.record_query(requests);
            open.look_up(server, &devices).await
        };
        tokio::pin!(look);
        tokio::select! {
            answer = &mut look => return answer,
            () = sleep(Duration::from_millis(limits::SLOW_LOOKUP_MS)) => {}
        }
        self.serve_stale(requests).await;
        look.await
    }

    fn record_query(&self, requests: &[LookupRequest]) {
        if !requests.is_empty() {
            self.registry.record_query();
        }
    }

    /// Submits the messages whose devices have a stale entry that is young enough.
    async fn serve_stale(&self, requests: &[LookupRequest]) {
        let admission = &self.admission;
        let stale_max_s = self.registry.settings.stale_max_s;
        let mut checked = CheckedGroup::default();
        for request in requests {
            let (tenant, device) = (request.tenant.as_str(), request.device.as_str());
            let now_s = admission.now_s();
            let stale = admission.cache.stale(request.key, tenant, device, now_s, stale_max_s);
            let Some(known) = stale.map(|hit| hit.clone()) else { continue };
            let messages = admission.pending.messages(request.key, usize::MAX);
            admission.cache.record_stale(messages.len() as u64);
            messages.into_iter().for_each(|pending| checked.add(admission, pending, Some(&known)));
        }
        checked.submit(&*self.sink).await;
    }

    /// Stores the registry's answer in the cache, and submits the messages that waited for it.
    async fn answer(
        &self,
        queries: &Option<DeviceQueries>,
        requests: Vec<LookupRequest>,
        rows: Vec<Option<RegistryRow>>,
        stamp: LookupStamp,
    ) {
        let (admission, pending) = (&self.admission, &self.admission.pending);
        let provisions = self.registry.settings.auto_provision;
        let mut open: Vec<(LookupRequest, Option<CachedDevice>)> = requests
            .into_iter()
            .zip(rows)
            .map(|(request, row)| {
                let known = self.cache(&request, row, stamp);
                (request, known)
            })
            .collect();
        while !open.is_empty() {
            let mut checked = CheckedGroup::default();
            let mut unknown = Vec::new();
            for (request, known) in &open {
                // One message of an unknown device adds it; the next one finds it in the registry.
                let most = if known.is_none() && provisions { 1 } else { usize::MAX };
                for message in pending.messages(request.key, most) {
                    checked.add(admission, message, known.as_ref());
                    if let (None, true, Some(site)) = (known, provisions, checked.site_of_unregistered()) {
                        unknown.push((request.tenant.clone(), request.device.clone(), site));
                    }
                }
            }
            checked.submit(&*self.sink).await;
            self.provision(queries, &unknown).await;
            open.retain(|(request, known)| {
                let outdated = pending.has_changed(request.key) || admission.cache.is_outdated(stamp);
                if (known.is_none() && provisions) || outdated {
                    pending.requeue(request.key);
                    return false;
                }
                !pending.finish(request.key)
            });
        }
    }

    /// Stores a row in the cache, unless the device has changed since the look-up began.
    fn cache(
        &self,
        request: &LookupRequest,
        row: Option<RegistryRow>,
        stamp: LookupStamp,
    ) -> Option<CachedDevice> {
        let (admission, key) = (&self.admission, request.key);
        let (tenant, device) = (request.tenant.as_str(), request.device.as_str());
        let known = row.map(|row| admission.cache_row(tenant, device, row, true));
        match &known {
            Some(known) => admission.cache.insert_stamped(key, known.clone(), stamp),
            None if self.registry.settings.auto_provision => {}
            None => {
                let tells = self.registry.notifies();
                let ttl_s =
                    if tells { limits::NEGATIVE_TTL_S } else { limits::NEGATIVE_TTL_WITHOUT_NOTIFY_S };
                admission.cache.insert_absent(key, tenant, device, stamp, ttl_s);
            }
        }
        // A notification marks the device first and then forgets it. In either order of this and that, an
        // older row does not stay.
        if admission.pending.has_changed(key) || admission.connects.has_changed(key) {
            admission.forget_device(key);
        }
        known
    }

    /// Adds unknown devices to the registry, with the sites that their messages named.
    async fn provision(&self, queries: &Option<DeviceQueries>, unknown: &[(TenantId, DeviceId, String)]) {
        let Some(queries) = queries.as_ref().filter(|_| !unknown.is_empty()) else { return };
        match queries.provision(&self.registry.server, unknown).await {
            Ok(added) => {
                self.registry.record_provisioned(added);
                tracing::info!(added, "devices were added to the registry");
            }
            Err(error) => tracing::error!(%error, "devices were not added; their next messages try again"),
        }
    }
}

/// Messages that were checked, to be submitted together.
#[derive(Default)]
pub(crate) struct CheckedGroup {
    admitted: Vec<Admitted>,
    refused: Vec<RefusedMessage>,
}

impl CheckedGroup {
    /// Checks a message by the registry's answer and adds it. `known` None: there is no such device.
    fn add(&mut self, admission: &Admission, pending: PendingMessage, known: Option<&CachedDevice>) {
        let PendingMessage { mut message, account, was_parked, over_rate, .. } = pending;
        if let Some(in_flight) = &admission.in_flight {
            message.token.enter(in_flight);
        }
        let limit = if was_parked || message.token.is_replay() {
            RateLimitMode::Off
        } else if over_rate {
            RateLimitMode::Exceeded
        } else {
            RateLimitMode::Taken(admission.now_s())
        };
        let source = known.map_or(LookupSource::Row(None), LookupSource::Device);
        let mut tape = TapeWriter::default();
        match admission.check_at(&admission.snapshot(), &message, source, limit, &mut tape) {
            Ok(sender) => {
                let own = &sender.tenant.account;
                own.mark_admitted();
                if !Arc::ptr_eq(own, &account) {
                    // It was counted as a stranger's.
                    own.receive(1);
                    account.withdraw(1);
                }
                self.admitted.push(sender.admit(message));
            }
            Err(NotAdmitted::Refused(error)) => self.refused.push(admission.refuse(message, error, account)),
            Err(NotAdmitted::Cold { .. } | NotAdmitted::OverRate(_)) => {
                unreachable!("the registry's answer is given, and the rate was taken")
            }
        }
    }

    /// The site that the last refused message named, if its device was unknown.
    fn site_of_unregistered(&self) -> Option<String> {
        let refused = self.refused.last().filter(|refused| refused.reason == Reason::UnregisteredDevice)?;
        Some(
            match Envelope::read(&refused.payload, &mut TapeWriter::default())
                .map(|envelope| envelope.site_id)
            {
                Ok(EnvelopeValue::Text(site)) => site.into_owned(),
                _ => String::new(),
            },
        )
    }

    async fn submit(self, sink: &impl AdmittedSink) {
        if !self.admitted.is_empty() || !self.refused.is_empty() {
            sink.submit(self.admitted, self.refused).await;
        }
    }
}

/// Parks messages that have waited too long, for ever.
pub(crate) async fn park_overdue(admission: Arc<Admission>, registry: Arc<PostgresRegistry>) {
    let most = Duration::from_millis(limits::REGISTRY_WAIT_MS);
    loop {
        sleep(RETRY_MIN).await;
        let patience = if registry.down_for() >= most { Duration::ZERO } else { most };
        let (parked, left) = admission.pending.park_overdue(patience, Instant::now());
        if parked > 0 || !left.is_empty() {
            let (reason, turned_away) = (Reason::RegistryUnavailable, left.len());
            tracing::warn!(%reason, parked, turned_away, "messages are parked until the registry is back");
        }
        left.into_iter().for_each(|pending| admission.give_up(pending));
    }
}

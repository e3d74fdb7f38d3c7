//! Room for what comes in: who has it, who waits for it, and who loses its oldest lines for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use tracing::warn;

use crate::commit_queue::{DeferredBatch, QueueItem};
use crate::deferred::DeferredRoom;
use crate::quota::QuotaCheck;
use crate::quota_state::QuotaState;
use crate::shared::Shared;
use tidegate_core::ack::settle::settle_all;
use tidegate_core::ack::token::AckToken;
use tidegate_core::books::{Account, Outcome};
use tidegate_core::ids::TenantId;
use tidegate_core::reason::Reason;
use tidegate_core::tenant::settings::WhenFull;

/// Messages for which there is no room, to be ended once no lock is held.
#[derive(Default)]
pub struct RejectedBatches {
    /// At QoS 0: gone.
    dropped: Vec<(Arc<Account>, Vec<AckToken>)>,
    /// Messages that their devices send again.
    abandoned: Vec<(Arc<Account>, Vec<AckToken>)>,
    /// Messages of an ended connection, or without lines, with their outcome.
    ended: Vec<(Arc<Account>, AckToken, Outcome)>,
}

impl RejectedBatches {
    pub fn finish(self) {
        for (account, tokens) in self.dropped {
            tracing::debug!(tenant = %account.tenant(), messages = tokens.len(), reason = %Reason::Overload,
                            "dropped: the tenant's share of the spool is full, and messages at QoS 0 do not wait");
            account.record_drops(Reason::Overload, tokens.len() as u64);
            settle_all(tokens, Outcome::Dropped, &account);
        }
        for (account, tokens) in self.abandoned {
            account.abandon(tokens.len() as u64);
            // Their connections end by it.
            drop(tokens);
        }
        for (account, token, outcome) in self.ended {
            token.settle(outcome, &account);
        }
    }
}

impl Shared {
    /// Takes room for an item, which goes to `taken`, or waits for room. What cannot wait goes to `shed`.
    pub fn admit(
        &self,
        quotas: &mut QuotaState,
        item: DeferredBatch,
        taken: &mut Vec<QueueItem>,
        shed: &mut RejectedBatches,
    ) {
        let (tenant, bytes) = (&item.batch.tenant.id, item.bytes());
        if !quotas.held.contains(tenant) {
            let full = quotas.try_take(tenant, bytes);
            if full == QuotaCheck::Free {
                taken.push(item.into());
                return;
            }
            let drops = self.when_full(quotas, tenant) == WhenFull::DropOldest;
            if drops && self.drop_oldest(quotas, tenant, full) {
                quotas.shares.take(tenant, bytes);
                taken.push(item.into());
                return;
            }
            if !drops && quotas.may_log(tenant) {
                let budget = quotas.shares.over_budget(tenant, bytes).map(|over| over.to_string());
                warn!(%tenant, share_bytes = quotas.shares.used(tenant), disk_full = matches!(full, QuotaCheck::DiskFull(_)), budget,
                      "the tenant's share of the spool is full: its messages wait unacknowledged, those at QoS 0 are dropped");
            }
        }
        self.defer(quotas, item, taken, shed);
    }

    /// Has an item wait, but for its messages at QoS 0: nobody could be held back by those.
    fn defer(
        &self,
        quotas: &mut QuotaState,
        item: DeferredBatch,
        taken: &mut Vec<QueueItem>,
        shed: &mut RejectedBatches,
    ) {
        let mut item = item;
        let account = item.batch.tenant.account.clone();
        if item.tokens().any(|token| !token.can_be_deferred()) {
            let (dropped, without_lines) = item.batch.take_out(|token| !token.can_be_deferred());
            if !dropped.is_empty() {
                shed.dropped.push((account.clone(), dropped));
            }
            let ended = without_lines.into_iter().map(|(token, outcome)| (account.clone(), token, outcome));
            shed.ended.extend(ended);
            item = item.rest();
        }
        let tenant = item.batch.tenant.id.clone();
        let (messages, keeps) = (item.batch.message_count(), item.batch.state_delta.is_some());
        if messages == 0 && item.draft.is_empty() {
            return;
        }
        // State without lines stays on no disk: it needs no room, only its turn.
        if item.batch.messages.is_empty() && !quotas.held.contains(&tenant) {
            let full = quotas.room(&tenant, item.bytes());
            if !matches!(full, QuotaCheck::DiskFull(_)) {
                quotas.shares.take(&tenant, item.bytes());
                taken.push(item.into());
                return;
            }
        }
        match quotas.held.room(&tenant, messages, item.memory_bytes()) {
            DeferredRoom::Free => item.tokens().for_each(|token| token.defer(false)),
            DeferredRoom::Stalled => item.tokens().for_each(|token| token.defer(true)),
            // The next messages build on it, so it is not let go: what is in front of it goes on though
            // the share is full, as long as the disk is not. Then it stays in its window.
            DeferredRoom::Full if keeps => {
                quotas.held.push(item);
                self.release_over_quota(quotas, &tenant, taken);
                return;
            }
            DeferredRoom::Full => {
                let (gone, _) = item.batch.take_out(AckToken::is_from_device);
                if !gone.is_empty() {
                    shed.abandoned.push((account, gone));
                    item = item.rest();
                }
                if item.batch.messages.is_empty() {
                    return;
                }
                // The rest stays in its window, which bounds it: a broker's session waits as a whole.
            }
        }
        quotas.held.push(item);
    }

    /// The oldest of a tenant that wait go on until it is below its ceiling again.
    fn release_over_quota(&self, quotas: &mut QuotaState, tenant: &TenantId, taken: &mut Vec<QueueItem>) {
        while quotas.held.room(tenant, 0, 0) == DeferredRoom::Full
            && let Some(bytes) = quotas.held.front(tenant).map(DeferredBatch::bytes)
            && !matches!(quotas.room(tenant, bytes), QuotaCheck::DiskFull(_))
            && let Some(mut item) = quotas.held.pop_front(tenant)
        {
            quotas.shares.take(tenant, bytes);
            item.tokens().for_each(AckToken::resume);
            taken.push(item.into());
        }
    }

    pub fn when_full(&self, quotas: &QuotaState, tenant: &TenantId) -> WhenFull {
        quotas.own_share(tenant).when_full.unwrap_or(self.settings.when_full)
    }

    /// Drops the oldest lines of whoever is over its share. False: there is nothing to drop, the
    /// writer has all of it.
    pub fn drop_oldest(&self, quotas: &mut QuotaState, tenant: &TenantId, full: QuotaCheck) -> bool {
        let (victim, bytes) = match full {
            QuotaCheck::Free => return true,
            QuotaCheck::TenantFull(bytes) => (tenant.clone(), bytes),
            // Nobody who is promised that nothing of it is dropped makes room for others.
            QuotaCheck::DiskFull(bytes) => {
                let drops = |other: &TenantId| self.when_full(quotas, other) == WhenFull::DropOldest;
                (quotas.shares.largest(drops).unwrap_or_else(|| tenant.clone()), bytes)
            }
        };
        let gone = self.index.lock().drop_oldest(&victim, bytes);
        if gone.lines > 0 {
            quotas.shares.release(&victim, gone.bytes);
            self.lines_pending.fetch_sub(gone.lines, Ordering::Relaxed);
            self.books.of_known(victim.as_str()).drop_lines(gone.lines);
            if quotas.may_log(&victim) {
                warn!(tenant = %victim, lines = gone.lines, reason = "SPOOL_FULL",
                      "the tenant's share of the spool is full: its oldest lines are dropped, as spool.when_full says");
            }
        }
        // What the writer has in hand is bounded by memory, so the share may be over by that.
        !matches!(full, QuotaCheck::DiskFull(_)) || gone.bytes > 0
    }

    /// A frame is released: its bytes are free, and what waited for them goes on.
    pub fn freed(&self, tenant: &TenantId, bytes: u64) {
        self.freed_all([(tenant, bytes)]);
    }

    /// The same for many frames: the bytes of each.
    pub fn freed_all<'a>(&self, frames: impl IntoIterator<Item = (&'a TenantId, u64)>) {
        let mut frames = frames.into_iter().peekable();
        if frames.peek().is_none() {
            return;
        }
        let mut quotas = self.quotas.lock();
        frames.for_each(|(tenant, bytes)| quotas.shares.release(tenant, bytes));
        self.release_deferred(quotas);
    }

    /// Admits the deferred batches for which there is room now.
    pub fn release_deferred(&self, mut quotas: MutexGuard<'_, QuotaState>) {
        if quotas.held.is_empty() {
            return;
        }
        let tenants: Vec<TenantId> = quotas.held.tenants().cloned().collect();
        let mut items = VecDeque::new();
        for tenant in tenants {
            while let Some(bytes) = quotas.held.front(&tenant).map(DeferredBatch::bytes) {
                let full = quotas.room(&tenant, bytes);
                let drops =
                    full != QuotaCheck::Free && self.when_full(&quotas, &tenant) == WhenFull::DropOldest;
                if full != QuotaCheck::Free && !(drops && self.drop_oldest(&mut quotas, &tenant, full)) {
                    break;
                }
                quotas.shares.take(&tenant, bytes);
                items.extend(quotas.held.pop_front(&tenant));
            }
        }
        if items.is_empty() {
            return;
        }
        // Before the room is free for others: the order within a tenant stays.
        self.queue.lock().items.extend(items.into_iter().map(|mut item| {
            item.tokens().for_each(|token| token.resume());
            QueueItem::from(item)
        }));
        drop(quotas);
        self.more.notify_one();
    }

    /// Forgets what waits for room and will come again anyway, because its connection has ended. What
    /// changes the state is not forgotten, for the next messages build on it: it goes on though its
    /// tenant's share is full, so that who connects again and again holds nobody's place.
    pub fn drop_abandoned(&self) {
        let mut quotas = self.quotas.lock();
        if quotas.held.is_empty() {
            return;
        }
        let tenants: Vec<TenantId> = quotas.held.tenants().cloned().collect();
        let (mut shed, mut on) = (RejectedBatches::default(), Vec::new());
        for tenant in tenants {
            let mut behind_another = false;
            for mut item in quotas.held.take(&tenant) {
                let keeps = item.batch.state_delta.is_some();
                let ended = item.tokens().all(|token| token.is_abandoned());
                if keeps && !item.draft.is_empty() {
                    if ended
                        && !behind_another
                        && !matches!(quotas.room(&tenant, item.bytes()), QuotaCheck::DiskFull(_))
                    {
                        quotas.shares.take(&tenant, item.bytes());
                        on.push(item);
                        continue;
                    }
                    // Changes stay in their order.
                    behind_another = true;
                } else if item.tokens().any(|token| token.is_abandoned()) {
                    let account = item.batch.tenant.account.clone();
                    let (gone, without_lines) = item.batch.take_out(AckToken::is_abandoned);
                    // Nothing of an ended connection is acknowledged, whatever it is settled as.
                    let gone = gone.into_iter().map(|token| (token, Outcome::Lines)).chain(without_lines);
                    shed.ended.extend(gone.map(|(token, outcome)| (account.clone(), token, outcome)));
                    if item.batch.message_count() == 0 {
                        continue;
                    }
                    item = item.rest();
                }
                quotas.held.push(item);
            }
        }
        if !on.is_empty() {
            on.iter_mut().flat_map(DeferredBatch::tokens).for_each(AckToken::resume);
            self.queue.lock().items.extend(on.into_iter().map(QueueItem::from));
            self.more.notify_one();
        }
        drop(quotas);
        shed.finish();
    }
}

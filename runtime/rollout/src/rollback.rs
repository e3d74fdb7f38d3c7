//! The way back to the version before: by hand, or because a probation failed.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::error::RolloutError;
use crate::history::{VersionOutcome, VersionRecord};
use crate::store::{FileEntry, GuestStore, RolloutEvent};
use tidegate_core::route_key::RouteKey;
use tidegate_decode::route::table::Route;
use tidegate_decode::route::version::RouteVersion;

/// The version that serves after a rollback.
#[derive(Clone, Debug, Serialize)]
pub struct RollbackResult {
    pub guest: String,
    pub digest: String,
    /// The version that served until then.
    pub from: String,
}

impl GuestStore {
    /// Brings back the version that served before the one that serves, which is not tried again.
    ///
    /// # Errors
    /// There is none to go back to.
    pub fn roll_back(&self, route_key: &RouteKey, who: &str) -> Result<RollbackResult, RolloutError> {
        loop {
            let target = self.previous_version(route_key)?;
            let copy = self.history.as_ref().and_then(|history| history.copy(route_key, &target));
            let (component, definition) = copy.ok_or(RolloutError::NoPrevious)?;
            // Without the lock: compiling takes seconds, and listings and scrapes would wait for it.
            let (guest, rules) = self.make(route_key, &component, &target.digest, &definition)?;
            let mut entries = self.entries.lock();
            let known = entries.get_mut(route_key).ok_or(RolloutError::NotThere)?;
            if known.record.previous().is_none_or(|previous| previous.version != target.version) {
                // Another change came first.
                continue;
            }
            let known_activity = known.serving.as_ref().map(|serving| serving.version.activity.clone());
            let activity = known_activity.unwrap_or_else(|| self.new_activity(route_key));
            let from = known.record.serving.clone().unwrap_or_default();
            let back = RouteVersion::new(guest, rules, target.version.clone(), activity);
            let (tag, digest) = (back.guest.tag.to_string(), back.guest.digest.clone());
            self.go_back(route_key, known, back, "rolled back by hand".into(), who);
            self.swap_table(&entries);
            return Ok(RollbackResult { guest: tag, digest, from });
        }
    }

    fn previous_version(&self, route_key: &RouteKey) -> Result<VersionRecord, RolloutError> {
        let entries = self.entries.lock();
        let known = entries.get(route_key).ok_or(RolloutError::NotThere)?;
        known.record.previous().cloned().ok_or(RolloutError::NoPrevious)
    }

    /// Rolls back after a failed probation; true if the table has to change.
    pub(super) fn check_probation(&self, route_key: &RouteKey, known: &mut FileEntry, now: Instant) -> bool {
        let Some(serving) = known.serving.clone() else { return false };
        let Some(probation) = &serving.probation else { return false };
        probation.expire(now);
        if probation.forget_if_passed() {
            known.record.probation_over = None;
            self.write(route_key, &known.record);
        }
        let Some(previous) = probation.rolled_back_to() else { return false };
        self.go_back(route_key, known, previous, probation.verdict(), "the gateway");
        true
    }

    fn go_back(
        &self,
        route_key: &RouteKey,
        known: &mut FileEntry,
        to: Arc<RouteVersion>,
        why: String,
        who: &str,
    ) {
        let record = &mut known.record;
        let from = record.serving.replace(to.id.clone());
        record.probation_over = None;
        let now = jiff::Timestamp::now().to_string();
        if let Some(from) = from.and_then(|from| record.find(&from).cloned()) {
            let (who, reason) = (who.to_owned(), Some(why.clone()));
            record.add(VersionRecord {
                outcome: VersionOutcome::RolledBack,
                reason,
                who,
                when: now.clone(),
                ..from
            });
        }
        if let Some(back) = record.find(&to.id).cloned() {
            let who = who.to_owned();
            record.add(VersionRecord { outcome: VersionOutcome::Serves, who, when: now, ..back });
        }
        self.write(route_key, &known.record);
        self.count(route_key, "rolled_back");
        let guest = to.guest.tag.to_string();
        known.error = Some(RolloutError::Known(why.clone()).to_string());
        known.set_aside = true;
        known.serving = Some(Route::new(to));
        let (tenant, message_type) = route_key.clone();
        self.record_event(RolloutEvent::RolledBack { tenant, message_type, guest, why });
    }
}

//! The way back to the version before: by hand, or because a probation failed.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::{Change, GuestStore, Seen};
use crate::decode::guest::GuestError;
use crate::decode::history::{Fate, Place, Version};
use crate::decode::routes::Route;
use crate::decode::slow::Pace;

/// What serves after a rollback.
#[derive(Clone, Debug, Serialize)]
pub struct RolledBack {
    pub guest: String,
    pub digest: String,
    /// What served until then.
    pub from: String,
}

impl GuestStore {
    /// Brings back the version that served before the one that serves, which is not tried again.
    ///
    /// # Errors
    /// There is none to go back to.
    pub fn roll_back(&self, place: &Place, who: &str) -> Result<RolledBack, GuestError> {
        let mut seen = self.seen.lock();
        let known = seen.get_mut(place).ok_or(GuestError::NotThere)?;
        let target = known.record.previous().cloned().ok_or(GuestError::NoPrevious)?;
        let copy = self.history.as_ref().and_then(|history| history.copy(place, &target));
        let (component, rules) = copy.ok_or(GuestError::NoPrevious)?;
        let (guest, rules) = self.make(place, &component, &target.digest, rules.as_deref())?;
        let state = known.serving.as_ref().map(|serving| serving.state.clone()).unwrap_or_default();
        let from = known.record.serving.clone().unwrap_or_default();
        let route = Arc::new(Route {
            guest,
            rules,
            version: target.version.clone(),
            state,
            pace: Pace::default(),
            probation: None,
        });
        let (tag, digest) = (route.guest.tag.to_string(), route.guest.digest.clone());
        self.go_back(place, known, route, "rolled back by hand".into(), who);
        self.swap_table(&seen);
        Ok(RolledBack { guest: tag, digest, from })
    }

    /// Brings back what a failed probation calls for; true if the table has to change.
    pub(super) fn look_at_probation(&self, place: &Place, known: &mut Seen, now: Instant) -> bool {
        let Some(serving) = known.serving.clone() else { return false };
        let Some(probation) = &serving.probation else { return false };
        probation.look_at_the_clock(now);
        if probation.forget_if_passed() {
            known.record.probation_over = None;
            self.write(place, &known.record);
        }
        let Some(previous) = probation.came_back() else { return false };
        self.go_back(place, known, previous, probation.verdict(), "the gateway");
        true
    }

    fn go_back(&self, place: &Place, known: &mut Seen, to: Arc<Route>, why: String, who: &str) {
        let record = &mut known.record;
        let from = record.serving.replace(to.version.clone());
        record.probation_over = None;
        let now = jiff::Timestamp::now().to_string();
        if let Some(from) = from.and_then(|from| record.find(&from).cloned()) {
            let (who, reason) = (who.to_owned(), Some(why.clone()));
            record.note(Version { outcome: Fate::RolledBack, reason, who, when: now.clone(), ..from });
        }
        if let Some(back) = record.find(&to.version).cloned() {
            let who = who.to_owned();
            record.note(Version { outcome: Fate::Serves, who, when: now, ..back });
        }
        self.write(place, &known.record);
        self.count(place, "rolled_back");
        let guest = to.guest.tag.to_string();
        known.error = Some(GuestError::Known(why.clone()).to_string());
        known.serving = Some(to);
        let (tenant, message_type) = place.clone();
        self.tell(Change::RolledBack { tenant, message_type, guest, why });
    }
}

//! The decision on a candidate that was evaluated: it serves, or it is refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::RolloutError;
use crate::folder::{Candidate, CandidateStamps};
use crate::history::{VersionOutcome, VersionRecord};
use crate::store::{FileEntry, GuestStore, RolloutEvent};
use tidegate_core::route_key::RouteKey;
use tidegate_decode::route::probation::Probation;
use tidegate_decode::route::rules::RouteRules;
use tidegate_decode::route::table::Route;
use tidegate_decode::route::version::RouteVersion;
use tidegate_decode::sandbox::guest::Guest;

/// Pause before a file is evaluated again after a fault of ours.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The same where the machine was too busy to compile it: the try keeps the loader for half a minute.
const AGAIN_AFTER_BUSY: Duration = Duration::from_secs(60);

impl GuestStore {
    pub(super) fn activate(
        &self,
        place: &RouteKey,
        stamps: CandidateStamps,
        wish: &Candidate,
        guest: Arc<Guest>,
        rules: RouteRules,
        who: &str,
    ) {
        let version = wish.version();
        if let Some(history) = &self.history
            && let Err(error) =
                history.keep(place, &wish.digest, &version, &wish.component, wish.rules.as_deref())
        {
            tracing::error!(%error, tenant = place.0, message_type = place.1, "no copy of a guest can be kept");
        }
        let mut seen = self.seen.lock();
        let known = seen
            .entry(place.clone())
            .or_insert_with(|| FileEntry::new(self.path_of(place), self.record(place)));
        let before = known.serving.take();
        if let Some(probation) = before.as_ref().and_then(|before| before.probation.as_ref()) {
            probation.end();
        }
        // One that has failed is no version to go back to.
        let previous = before.as_ref().map(|before| match before.rolled_back_to() {
            Some(earlier) => earlier,
            None => before.version.clone(),
        });
        let now = jiff::Timestamp::now().to_string();
        let record = &mut known.record;
        let replaced = record.serving.replace(version.clone());
        record.probation_over = previous.as_ref().map(|previous| previous.id.clone());
        if let Some(replaced) = replaced.and_then(|replaced| {
            record.versions.iter_mut().find(|known| known.version == replaced && known.version != version)
        }) {
            replaced.outcome = VersionOutcome::Served;
        }
        let tag = guest.tag.to_string();
        record.add(VersionRecord {
            version: version.clone(),
            digest: wish.digest.clone(),
            guest: Some(tag.clone()),
            bytes: wish.component.len() as u64,
            who: who.to_owned(),
            when: now,
            outcome: VersionOutcome::Serves,
            reason: None,
            cases: wish.cases_digest(),
        });
        self.write(place, record);
        let replaced = before.as_ref().map(|before| before.version.guest.tag.to_string());
        let activity = before.as_ref().map(|before| before.version.activity.clone()).unwrap_or_default();
        let probation = previous.map(|previous| Arc::new(Probation::new(previous, rules.probation)));
        known.serving =
            Some(Route { version: RouteVersion::new(guest, rules, version, activity), probation });
        known.error = None;
        known.settle(stamps);
        self.swap_table(&seen);
        self.count(place, if replaced.is_some() { "replaced" } else { "new" });
        let (tenant, message_type) = place.clone();
        self.record_event(RolloutEvent::Serves { tenant, message_type, guest: tag, replaced });
    }

    pub(super) fn refuse(
        &self,
        place: &RouteKey,
        stamps: Option<CandidateStamps>,
        wish: Option<&Candidate>,
        error: &RolloutError,
        who: &str,
    ) {
        let why = error.to_string();
        let mut seen = self.seen.lock();
        let mut unseen = None;
        let known = match seen.get_mut(place) {
            Some(known) => known,
            None => unseen.insert(FileEntry::new(PathBuf::new(), self.record(place))),
        };
        let is_news = stamps.is_none() || known.error.as_ref() != Some(&why);
        if let Some(stamps) = stamps {
            known.settle(stamps);
            known.error = Some(why.clone());
        }
        if error.is_ours() {
            known.stamps = CandidateStamps::default();
            let pause = if error.is_of_a_busy_machine() { AGAIN_AFTER_BUSY } else { AGAIN_AFTER };
            known.again = Some(Instant::now() + pause);
        } else if let Some(wish) = wish
            && known.record.serving != Some(wish.version())
        {
            known.record.add(VersionRecord {
                version: wish.version(),
                digest: wish.digest.clone(),
                guest: None,
                bytes: wish.component.len() as u64,
                who: who.to_owned(),
                when: jiff::Timestamp::now().to_string(),
                outcome: VersionOutcome::Refused,
                reason: Some(why.clone()),
                cases: wish.cases_digest(),
            });
            self.write(place, &known.record);
        }
        // A fault of ours is met again and again; once is enough to say so. Who sees that it is refused
        // finds it counted.
        if is_news || !error.is_ours() {
            self.count(place, error.outcome());
            let (tenant, message_type) = place.clone();
            self.record_event(RolloutEvent::Refused { tenant, message_type, why });
        }
    }
}

//! The decision on a candidate that was evaluated: it serves, or it is refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::candidate::Candidate;
use crate::error::RolloutError;
use crate::folder::CandidateStamps;
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

/// The same if the machine was too busy to compile it: a try keeps the worker for half a minute.
const AGAIN_AFTER_BUSY: Duration = Duration::from_secs(60);

impl GuestStore {
    pub(super) fn activate(
        &self,
        route_key: &RouteKey,
        stamps: CandidateStamps,
        candidate: &Candidate,
        guest: Arc<Guest>,
        rules: RouteRules,
        who: &str,
    ) {
        let version = candidate.version();
        if let Err(low) = self.disk_reserve.check() {
            tracing::error!(%low, tenant = route_key.0, message_type = route_key.1, "no copy of a guest is kept");
        } else if let Some(history) = &self.history
            && let Err(error) = history.keep(route_key, candidate)
        {
            tracing::error!(%error, tenant = route_key.0, message_type = route_key.1, "no copy of a guest can be kept");
        }
        let mut entries = self.entries.lock();
        let path = self.path_of(route_key, candidate.extension());
        let known = entries
            .entry(route_key.clone())
            .or_insert_with(|| FileEntry::new(path.clone(), self.record(route_key)));
        known.path = path;
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
            digest: candidate.digest.clone(),
            guest: Some(tag.clone()),
            bytes: candidate.component.len() as u64,
            who: who.to_owned(),
            when: now,
            outcome: VersionOutcome::Serves,
            reason: None,
            cases: candidate.cases_digest(),
            built_in: candidate.definition.built_in.clone(),
        });
        self.write(route_key, record);
        let replaced = before.as_ref().map(|before| before.version.guest.tag.to_string());
        let known_activity = before.as_ref().map(|before| before.version.activity.clone());
        let activity = known_activity.unwrap_or_else(|| self.new_activity(route_key));
        let probation = previous.map(|previous| Arc::new(Probation::new(previous, rules.probation)));
        known.serving =
            Some(Route { version: RouteVersion::new(guest, rules, version, activity), probation });
        known.error = None;
        known.settle(stamps);
        self.swap_table(&entries);
        self.count(route_key, if replaced.is_some() { "replaced" } else { "new" });
        let (tenant, message_type) = route_key.clone();
        self.record_event(RolloutEvent::Serves { tenant, message_type, guest: tag, replaced });
    }

    pub(super) fn refuse(
        &self,
        route_key: &RouteKey,
        stamps: Option<CandidateStamps>,
        candidate: Option<&Candidate>,
        error: &RolloutError,
        who: &str,
    ) {
        let why = error.to_string();
        let mut entries = self.entries.lock();
        let mut unseen = None;
        let lies_there = entries.contains_key(route_key);
        let known = match entries.get_mut(route_key) {
            Some(known) => known,
            None => unseen.insert(FileEntry::new(PathBuf::new(), self.record(route_key))),
        };
        let is_news = stamps.is_none() || known.error.as_ref() != Some(&why);
        let mut is_idle = false;
        if let Some(stamps) = stamps {
            known.settle(stamps);
            is_idle = known.serving.is_none() && is_news;
            known.error = Some(why.clone());
        }
        if error.is_ours() {
            known.stamps = CandidateStamps::default();
            let pause = if error.is_of_a_busy_machine() { AGAIN_AFTER_BUSY } else { AGAIN_AFTER };
            known.again = Some(Instant::now() + pause);
        } else if let Some(candidate) = candidate
            && known.record.serving != Some(candidate.version())
            // Of what never served and lies nowhere, nothing is kept.
            && (lies_there || known.record.has_served())
        {
            known.record.add(VersionRecord {
                version: candidate.version(),
                digest: candidate.digest.clone(),
                guest: None,
                bytes: candidate.component.len() as u64,
                who: who.to_owned(),
                when: jiff::Timestamp::now().to_string(),
                outcome: VersionOutcome::Refused,
                reason: Some(why.clone()),
                cases: candidate.cases_digest(),
                built_in: candidate.definition.built_in.clone(),
            });
            self.write(route_key, &known.record);
        }
        if is_idle {
            // Messages that it would decode are told the reason.
            self.swap_table(&entries);
        }
        // A fault of ours is met again and again; once is enough to say so. Who sees that it is refused
        // finds it counted.
        if is_news || !error.is_ours() {
            match lies_there {
                true => self.count(route_key, error.outcome()),
                false => self.count_elsewhere(route_key, error.outcome()),
            }
            let (tenant, message_type) = route_key.clone();
            self.record_event(RolloutEvent::Refused { tenant, message_type, why });
        }
    }
}

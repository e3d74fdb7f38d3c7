//! The folder, looked at: at start and again, and what has changed there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::error::RolloutError;
use crate::folder;
use crate::folder::{Candidate, CandidateStamps};
use crate::history::VersionOutcome;
use crate::store::{FileEntry, GuestStore, RolloutEvent};
use tidegate_core::route_key::RouteKey;
use tidegate_decode::route::probation::Probation;
use tidegate_decode::route::rules::RouteRules;
use tidegate_decode::route::stats::RouteActivity;
use tidegate_decode::route::table::Route;
use tidegate_decode::route::version::RouteVersion;
use tidegate_decode::sandbox::guest::Guest;

impl GuestStore {
    /// At start: what served serves again, then what lies in the folder is judged.
    pub(super) fn load_at_start(&self, place: &RouteKey, path: &Path) {
        let record = self.record(place);
        let wish = self.read_wish(place, path);
        let wished = wish.as_ref().ok().map(Candidate::version);
        let restore = |version: &str| {
            let known = record.find(version)?;
            // The folder's own file is as good as the copy.
            let (component, rules) = match &wish {
                Ok(wish) if wished.as_deref() == Some(version) => {
                    (wish.component.clone(), wish.rules.clone())
                }
                _ => self.history.as_ref()?.copy(place, known)?,
            };
            match self.make(place, &component, &known.digest, rules.as_deref()) {
                Ok((guest, rules)) => Some((guest, rules, version.to_owned())),
                Err(error) => {
                    let (tenant, message_type) = place;
                    tracing::error!(%error, tenant, message_type, "what served does not load any more");
                    None
                }
            }
        };
        let activity = Arc::new(RouteActivity::default());
        let version = |(guest, rules, id): (Arc<Guest>, RouteRules, String)| {
            RouteVersion::new(guest, rules, id, activity.clone())
        };
        let previous = record.probation_over.as_deref().and_then(restore).map(version);
        let serving = record.serving.as_deref().and_then(restore).map(version).map(|version| {
            let probation = previous.map(|previous| Probation::new(previous, version.rules.probation));
            Route { version, probation: probation.map(Arc::new) }
        });
        let mut known = FileEntry::new(path.to_owned(), record.clone());
        if let Some(serving) = &serving {
            let guest = serving.version.guest.tag.to_string();
            let (tenant, message_type) = place.clone();
            self.record_event(RolloutEvent::Serves { tenant, message_type, guest, replaced: None });
        }
        known.serving = serving;
        self.seen.lock().insert(place.clone(), known);
        self.evaluate_file(place);
    }

    /// Looks at the folder again: what is gone is gone at once, what changed is evaluated by the worker.
    /// Ends probations whose time is over, and brings back what a failed one calls for. Gives what
    /// has changed since the last time.
    ///
    /// # Errors
    /// The folder cannot be read; what served goes on.
    pub fn refresh(&self) -> Result<Vec<RolloutEvent>, RolloutError> {
        let (files, unreadable) = folder::files(&self.folder)?;
        let mut seen = self.seen.lock();
        // What a tenant's folder holds that cannot be read nobody knows; nothing of it is gone.
        let is_gone = |place: &&RouteKey| !files.contains_key(*place) && !unreadable.contains(&place.0);
        let gone: Vec<RouteKey> = seen.keys().filter(is_gone).cloned().collect();
        for place in &gone {
            self.retire(&mut seen, place);
        }
        let now = Instant::now();
        for (place, path) in files {
            let stamps = CandidateStamps::of(&path);
            let known = seen
                .entry(place.clone())
                .or_insert_with(|| FileEntry::new(path.clone(), self.record(&place)));
            let waits = known.again.is_some_and(|again| now < again);
            if known.stamps == stamps || known.queued || waits || folder::is_being_written(&path) {
                continue;
            }
            known.queued = true;
            self.queue_of(&place).enqueue_file(place);
        }
        let mut swapped = !gone.is_empty();
        for (place, known) in seen.iter_mut() {
            swapped |= self.look_at_probation(place, known, now);
        }
        if swapped {
            self.swap_table(&seen);
        }
        drop(seen);
        Ok(self.take_events())
    }

    pub(super) fn retire(&self, seen: &mut BTreeMap<RouteKey, FileEntry>, place: &RouteKey) {
        let Some(mut known) = seen.remove(place) else { return };
        if let Some(serving) = known.record.serving.take()
            && let Some(version) = known.record.versions.iter_mut().find(|known| known.version == serving)
        {
            version.outcome = VersionOutcome::Served;
        }
        known.record.probation_over = None;
        self.write(place, &known.record);
        self.record_event(RolloutEvent::Gone { tenant: place.0.clone(), message_type: place.1.clone() });
    }

    /// Judges what lies at a place in the folder, and lets it serve if it may.
    pub(super) fn evaluate_file(&self, place: &RouteKey) {
        let Some((path, before)) = self.seen.lock().get(place).map(|s| (s.path.clone(), s.serving.clone()))
        else {
            return;
        };
        let stamps = CandidateStamps::of(&path);
        let wish = self.read_wish(place, &path);
        if CandidateStamps::of(&path) != stamps {
            // It changed while it was read: the next look sees another file.
            if let Some(known) = self.seen.lock().get_mut(place) {
                known.queued = false;
            }
            return;
        }
        let wish = match wish {
            Ok(wish) => wish,
            Err(error) => return self.refuse(place, Some(stamps), None, &error, "file"),
        };
        let version = wish.version();
        if let Some(known) = self.seen.lock().get_mut(place) {
            let serves = known.serving.as_ref().is_some_and(|serving| serving.version.id == version);
            let refusal = known.record.refusal(&version, wish.cases_digest().as_deref());
            if serves || refusal.is_some() {
                let error =
                    refusal.map(|refusal| RolloutError::Known(refusal.reason.clone().unwrap_or_default()));
                known.settle(stamps);
                let error = error.map(|error| error.to_string());
                if let Some(why) = error.clone()
                    && error != known.error
                {
                    let (tenant, message_type) = place.clone();
                    self.record_event(RolloutEvent::Refused { tenant, message_type, why });
                }
                known.error = error;
                return;
            }
        }
        match self.evaluate(place, &wish, before.as_ref().map(|before| &*before.version)) {
            Ok((guest, rules)) => self.activate(place, stamps, &wish, guest, rules, "file"),
            Err(error) => self.refuse(place, Some(stamps), Some(&wish), &error, "file"),
        }
    }

    fn read_wish(&self, place: &RouteKey, path: &Path) -> Result<Candidate, RolloutError> {
        Candidate::read(&self.folder, path, self.component_bytes_max(place)).map_err(|error| match error {
            RolloutError::TooLarge { bytes, most } => self.too_large(place, bytes, most),
            error => error,
        })
    }
}

//! The folder, looked at: at start and again, and what has changed there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{Change, GuestStore, Seen};
use crate::decode::folder::{self, Stamps, Wish};
use crate::decode::guest::{Guest, GuestError};
use crate::decode::history::{Fate, Place};
use crate::decode::probation::Probation;
use crate::decode::route_file::RouteRules;
use crate::decode::routes::{Route, RouteState};
use crate::decode::slow::Pace;

impl GuestStore {
    /// At start: what served serves again, then what lies in the folder is judged.
    pub(super) fn first_look(&self, place: &Place, path: &Path) {
        let record = self.record(place);
        let wish = self.read_wish(place, path);
        let wished = wish.as_ref().ok().map(Wish::version);
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
        let state = Arc::new(RouteState::default());
        let route = |(guest, rules, version): (Arc<Guest>, RouteRules, String),
                     previous: Option<Arc<Route>>| {
            let probation = previous.map(|previous| Probation::new(previous, rules.probation));
            let pace = Pace::default();
            Arc::new(Route { guest, rules, version, state: state.clone(), pace, probation })
        };
        let previous = record.probation_over.as_deref().and_then(restore).map(|parts| route(parts, None));
        let serving = record.serving.as_deref().and_then(restore).map(|parts| route(parts, previous));
        let mut known = Seen::new(path.to_owned(), record.clone());
        if let Some(serving) = &serving {
            let guest = serving.guest.tag.to_string();
            let (tenant, message_type) = place.clone();
            self.tell(Change::Serves { tenant, message_type, guest, replaced: None });
        }
        known.serving = serving;
        self.seen.lock().insert(place.clone(), known);
        self.look(place);
    }

    /// Looks at the folder again: what is gone is gone at once, what changed is judged by the loader.
    /// Ends probations whose time is over, and brings back what a failed one calls for. Gives what
    /// has changed since the last time.
    ///
    /// # Errors
    /// The folder cannot be read; what served goes on.
    pub fn refresh(&self) -> Result<Vec<Change>, GuestError> {
        let (files, unreadable) = folder::files(&self.folder)?;
        let mut seen = self.seen.lock();
        // What a tenant's folder holds that cannot be read nobody knows; nothing of it is gone.
        let is_gone = |place: &&Place| !files.contains_key(*place) && !unreadable.contains(&place.0);
        let gone: Vec<Place> = seen.keys().filter(is_gone).cloned().collect();
        for place in &gone {
            self.take_out(&mut seen, place);
        }
        let now = Instant::now();
        for (place, path) in files {
            let stamps = Stamps::of(&path);
            let known =
                seen.entry(place.clone()).or_insert_with(|| Seen::new(path.clone(), self.record(&place)));
            let waits = known.again.is_some_and(|again| now < again);
            if known.stamps == stamps || known.queued || waits || folder::is_being_written(&path) {
                continue;
            }
            known.queued = true;
            self.queue_of(&place).look(place);
        }
        let mut swapped = !gone.is_empty();
        for (place, known) in seen.iter_mut() {
            swapped |= self.look_at_probation(place, known, now);
        }
        if swapped {
            self.swap_table(&seen);
        }
        drop(seen);
        Ok(self.take_changes())
    }

    pub(super) fn take_out(&self, seen: &mut BTreeMap<Place, Seen>, place: &Place) {
        let Some(mut known) = seen.remove(place) else { return };
        if let Some(serving) = known.record.serving.take()
            && let Some(version) = known.record.versions.iter_mut().find(|known| known.version == serving)
        {
            version.outcome = Fate::Served;
        }
        known.record.probation_over = None;
        self.write(place, &known.record);
        self.tell(Change::Gone { tenant: place.0.clone(), message_type: place.1.clone() });
    }

    /// Judges what lies at a place in the folder, and lets it serve if it may.
    pub(in crate::decode) fn look(&self, place: &Place) {
        let Some((path, before)) = self.seen.lock().get(place).map(|s| (s.path.clone(), s.serving.clone()))
        else {
            return;
        };
        let stamps = Stamps::of(&path);
        let wish = self.read_wish(place, &path);
        if Stamps::of(&path) != stamps {
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
            let serves = known.serving.as_ref().is_some_and(|serving| serving.version == version);
            let refusal = known.record.refusal(&version, wish.cases_digest().as_deref());
            if serves || refusal.is_some() {
                let error =
                    refusal.map(|refusal| GuestError::Known(refusal.reason.clone().unwrap_or_default()));
                known.settle(stamps);
                let error = error.map(|error| error.to_string());
                if let Some(why) = error.clone()
                    && error != known.error
                {
                    let (tenant, message_type) = place.clone();
                    self.tell(Change::Refused { tenant, message_type, why });
                }
                known.error = error;
                return;
            }
        }
        match self.judge(place, &wish, before.as_deref()) {
            Ok((guest, rules)) => self.activate(place, stamps, &wish, guest, rules, "file"),
            Err(error) => self.refuse(place, Some(stamps), Some(&wish), &error, "file"),
        }
    }

    fn read_wish(&self, place: &Place, path: &Path) -> Result<Wish, GuestError> {
        Wish::read(&self.folder, path, self.component_bytes_max(place)).map_err(|error| match error {
            GuestError::TooLarge { bytes, most } => self.too_large(place, bytes, most),
            error => error,
        })
    }
}

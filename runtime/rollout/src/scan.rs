//! The scan of the guests folder for changes, at start and again and again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::candidate::Candidate;
use crate::comparison::Comparison;
use crate::error::RolloutError;
use crate::evaluate::Evaluated;
use crate::folder;
use crate::folder::{CandidateStamps, FolderFiles, route_file_name};
use crate::history::VersionOutcome;
use crate::store::{FileEntry, GuestStore, RolloutEvent};
use tidegate_core::route_key::RouteKey;
use tidegate_decode::route::probation::Probation;
use tidegate_decode::route::rules::RouteRules;
use tidegate_decode::route::table::Route;
use tidegate_decode::route::version::RouteVersion;
use tidegate_decode::sandbox::guest::Guest;

impl GuestStore {
    /// At start: restores the version that served, then evaluates the file in the folder.
    pub(super) fn load_at_start(&self, route_key: &RouteKey, path: &Path) {
        let record = self.record(route_key);
        let candidate = self.read_candidate(route_key);
        let candidate_version = candidate.as_ref().ok().map(Candidate::version);
        let restore = |version: &str| {
            let known = record.find(version)?;
            // The folder's own file is as good as the copy.
            let (component, definition) = match &candidate {
                Ok(candidate) if candidate_version.as_deref() == Some(version) => {
                    (candidate.component.clone(), candidate.definition.clone())
                }
                _ => self.history.as_ref()?.copy(route_key, known)?,
            };
            match self.make(route_key, &component, &known.digest, &definition) {
                Ok((guest, rules)) => Some((guest, rules, version.to_owned())),
                Err(error) => {
                    let (tenant, message_type) = route_key;
                    tracing::error!(%error, tenant, message_type, "the decoder that served does not load any more");
                    None
                }
            }
        };
        let activity = self.new_activity(route_key);
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
            let (tenant, message_type) = route_key.clone();
            self.record_event(RolloutEvent::Serves { tenant, message_type, guest, replaced: None });
        }
        known.serving = serving;
        self.entries.lock().insert(route_key.clone(), known);
        self.evaluate_file(route_key);
    }

    /// Scans the folder again: a removed file stops serving at once, a changed one is evaluated by the
    /// worker. Ends probations whose time is over, and rolls back failed ones. Gives the events since the
    /// last time.
    ///
    /// # Errors
    /// The folder cannot be read; all versions serve on.
    pub fn refresh(&self) -> Result<Vec<RolloutEvent>, RolloutError> {
        let (files, unreadable) = self.route_files()?;
        let mut entries = self.entries.lock();
        // The content of a folder that cannot be read is unknown, so none of its files counts as removed.
        let is_gone =
            |route_key: &&RouteKey| !files.contains_key(*route_key) && !unreadable.contains(&route_key.0);
        let gone: Vec<RouteKey> = entries.keys().filter(is_gone).cloned().collect();
        for route_key in &gone {
            self.retire(&mut entries, route_key);
        }
        let now = Instant::now();
        for (route_key, path) in files {
            let stamps = CandidateStamps::read(&path);
            let known = entries
                .entry(route_key.clone())
                .or_insert_with(|| FileEntry::new(path.clone(), self.record(&route_key)));
            if known.path != path {
                known.path.clone_from(&path);
            }
            let waits = known.again.is_some_and(|again| now < again);
            if known.stamps == stamps || known.queued || waits || folder::is_being_written(&path) {
                continue;
            }
            known.queued = true;
            self.queue_of(&route_key).enqueue_file(route_key, stamps.component_bytes());
        }
        let mut swapped = !gone.is_empty();
        for (route_key, known) in entries.iter_mut() {
            swapped |= self.check_probation(route_key, known, now);
        }
        if swapped {
            self.swap_table(&entries);
        }
        drop(entries);
        self.disk_use.measure_all();
        Ok(self.take_events())
    }

    /// The routes of the folder, each with the file that makes it one, and the folders that cannot be read.
    pub(super) fn route_files(&self) -> Result<(BTreeMap<RouteKey, PathBuf>, Vec<String>), RolloutError> {
        let FolderFiles { mut routes, lone_route_files, unreadable } =
            folder::files(&self.folder).map_err(RolloutError::Unreadable)?;
        for route_key in self.lone_route_files.routes(&self.folder, lone_route_files) {
            let path = self.folder.join(&route_key.0).join(route_file_name(&route_key.1));
            routes.insert(route_key, path);
        }
        Ok((routes, unreadable))
    }

    pub(super) fn retire(&self, entries: &mut BTreeMap<RouteKey, FileEntry>, route_key: &RouteKey) {
        let Some(mut known) = entries.remove(route_key) else { return };
        if let Some(serving) = known.record.serving.take()
            && let Some(version) = known.record.versions.iter_mut().find(|known| known.version == serving)
        {
            version.outcome = VersionOutcome::Served;
        }
        known.record.probation_over = None;
        self.merge_counts(route_key);
        self.write(route_key, &known.record);
        self.record_event(RolloutEvent::Gone {
            tenant: route_key.0.clone(),
            message_type: route_key.1.clone(),
        });
    }

    /// Evaluates the file of a route, and lets it serve if it may.
    pub(super) fn evaluate_file(&self, route_key: &RouteKey) {
        let Some((path, before)) =
            self.entries.lock().get(route_key).map(|s| (s.path.clone(), s.serving.clone()))
        else {
            return;
        };
        let stamps = CandidateStamps::read(&path);
        let candidate = self.read_candidate(route_key);
        if CandidateStamps::read(&path) != stamps {
            // It changed while it was read: the next scan sees another file.
            if let Some(known) = self.entries.lock().get_mut(route_key) {
                known.queued = false;
            }
            return;
        }
        let candidate = match candidate {
            Ok(candidate) => candidate,
            Err(error) => return self.refuse(route_key, Some(stamps), None, &error, "file"),
        };
        let version = candidate.version();
        let mut entries = self.entries.lock();
        if let Some(known) = entries.get_mut(route_key) {
            let serves = known.serving.as_ref().is_some_and(|serving| serving.version.id == version);
            let refusal = known.record.refusal(&version, candidate.cases_digest().as_deref());
            let rolled_back = refusal.is_some_and(|refusal| refusal.outcome == VersionOutcome::RolledBack);
            if serves || refusal.is_some() {
                let error =
                    refusal.map(|refusal| RolloutError::Known(refusal.reason.clone().unwrap_or_default()));
                known.settle(stamps);
                known.set_aside = rolled_back;
                let error = error.map(|error| error.to_string());
                if let Some(why) = error.clone()
                    && error != known.error
                {
                    let (tenant, message_type) = route_key.clone();
                    self.record_event(RolloutEvent::Refused { tenant, message_type, why });
                }
                let is_idle = known.serving.is_none() && known.error != error;
                known.error = error;
                if is_idle {
                    self.swap_table(&entries);
                }
                return;
            }
        }
        drop(entries);
        match self.evaluate(route_key, &candidate, before.as_ref().map(|before| &*before.version)) {
            Ok(evaluated) => {
                if let Some(Comparison { compared, different: different @ 1.., .. }) = evaluated.comparison {
                    let (tenant, message_type) = route_key;
                    tracing::info!(
                        tenant,
                        message_type,
                        compared,
                        different,
                        "the new version decodes messages differently"
                    );
                }
                let Evaluated { guest, rules, .. } = evaluated;
                self.activate(route_key, stamps, &candidate, guest, rules, "file");
            }
            Err(error) => self.refuse(route_key, Some(stamps), Some(&candidate), &error, "file"),
        }
    }

    fn read_candidate(&self, route_key: &RouteKey) -> Result<Candidate, RolloutError> {
        Candidate::read(&self.folder, route_key, self.component_bytes_max(route_key)).map_err(|error| {
            match error {
                RolloutError::TooLarge { bytes, most } => self.too_large(route_key, bytes, most),
                error => error,
            }
        })
    }
}

//! Decoders that are put in place, or taken away, from outside.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::builtin;
use crate::candidate::{Candidate, script_entry};
use crate::definition::RouteDefinition;
use crate::error::RolloutError;
use crate::evaluate::Evaluated;
use crate::expected_version::ExpectedVersion;
use crate::folder::{CandidateStamps, cases_name, component_name, route_file_name};
use crate::put_request::{PutAuthor, PutFile, PutRequest, PutResult, Trial};
use crate::store::GuestStore;
use crate::tenant_folder::TenantFolder;
use tidegate_core::route_key::RouteKey;
use tidegate_decode::route::rules::RouteRules;
use tidegate_decode::route::stats::RouteActivity;
use tidegate_decode::route::version::RouteVersion;
use tidegate_decode::sandbox::guest::Guest;

impl GuestStore {
    /// Judges a decoder, lays its file into the folder, and lets it serve. Takes as long as compiling,
    /// cases and trial run take.
    ///
    /// # Errors
    /// The reason why it may not serve; then nothing has changed but the history.
    pub fn put_now(&self, put: PutRequest) -> Result<PutResult, RolloutError> {
        let PutRequest { route_key, file, cases, author, expect_same, expect_version, trial } = put;
        let route_key = &route_key;
        let (tenant, stem) = route_key;
        let bytes = file.bytes().len() as u64;
        let most = PutFile::bytes_max(file.extension(), self.component_bytes_max(route_key));
        if bytes > most {
            return Err(match file {
                PutFile::Component(_) => self.too_large(route_key, bytes, most),
                _ => RolloutError::TooLarge { bytes, most },
            });
        }
        self.disk_reserve.refresh();
        self.disk_reserve.check()?;
        if let PutAuthor::Tenant(_) = author {
            let cases = cases.as_ref().map_or(0, |cases| cases.len() as u64);
            self.check_quota(route_key, bytes + cases)?;
        }
        let extension = file.extension();
        let mut candidate = match TenantFolder::open(&self.folder, tenant) {
            Ok(folder) => Candidate::put(Some(&folder), stem, file)?,
            Err(RolloutError::Unreadable(error)) if error.kind() == ErrorKind::NotFound => {
                Candidate::put(None, stem, file)?
            }
            Err(RolloutError::Unreadable(error)) => {
                return Err(RolloutError::Host(format!("the guests folder cannot be read: {error}")));
            }
            Err(error) => return Err(error),
        };
        let brings_cases = cases.is_some();
        if brings_cases {
            candidate.cases = cases;
        }
        if let Some(trial) = trial {
            self.check_expected(route_key, expect_version.as_ref())?;
            return self.try_out(route_key, &candidate, &author, expect_same, &trial);
        }
        let before = self.entries.lock().get(route_key).and_then(|entry| entry.serving.clone());
        let serves = before.as_ref().is_some_and(|before| before.version.id == candidate.version());
        let mut evaluated = None;
        if !serves {
            self.check_expected(route_key, expect_version.as_ref())?;
        }
        if !serves || brings_cases {
            let judged = self.evaluate(route_key, &candidate, before.as_ref().map(|before| &*before.version));
            match judged.and_then(|judged| same_if_expected(judged, expect_same)) {
                Ok(judged) => evaluated = Some(judged),
                Err(error) => {
                    self.penalise(&author, &error);
                    self.refuse(route_key, None, Some(&candidate), &error, &author.to_string());
                    return Err(error);
                }
            }
        }
        if !serves {
            // It was judged for some time: a file may have come into the folder, or the one before may be back.
            self.check_expected(route_key, expect_version.as_ref())?;
        }
        let folder = TenantFolder::make(&self.folder, tenant)?;
        let staging = self.staging.as_deref();
        if let (true, Some(cases)) = (brings_cases, &candidate.cases) {
            folder.replace(&cases_name(stem), cases.as_bytes(), staging)?;
        }
        lay_down(&folder, stem, extension, &candidate, staging)?;
        let stamps = CandidateStamps::read(&self.path_of(route_key, extension));
        if let (true, Some(before)) = (serves, &before) {
            if let Some(known) = self.entries.lock().get_mut(route_key) {
                known.settle(stamps);
                known.error = None;
            }
            let (guest, digest) = (before.version.guest.tag.to_string(), before.version.guest.digest.clone());
            return Ok(PutResult { guest, digest, state: "unchanged", comparison: None });
        }
        let Some(Evaluated { guest, rules, comparison }) = evaluated else {
            unreachable!("what does not serve was evaluated")
        };
        let (tag, digest) = (guest.tag.to_string(), guest.digest.clone());
        self.activate(route_key, stamps, &candidate, guest, rules, &author.to_string());
        self.disk_use.measure(&route_key.0);
        Ok(PutResult { guest: tag, digest, state: "serving", comparison })
    }

    /// Refuses a put whose author began with another version than the one that serves.
    fn check_expected(
        &self,
        route_key: &RouteKey,
        expected: Option<&ExpectedVersion>,
    ) -> Result<(), RolloutError> {
        let Some(expected) = expected else { return Ok(()) };
        let entries = self.entries.lock();
        let entry = entries.get(route_key);
        let serving = entry.and_then(|entry| entry.serving.as_ref());
        let serving = serving.map(|route| route.version.id.as_str());
        if expected.is(serving) {
            return Ok(());
        }
        let put_by = entry.zip(serving).and_then(|(entry, version)| entry.record.find(version));
        let serves = match (serving, put_by) {
            (None, _) => "now nothing serves".to_owned(),
            (Some(version), None) => format!("now {version} serves"),
            (Some(version), Some(put)) => format!("now {version} serves, put by {} at {}", put.who, put.when),
        };
        Err(RolloutError::Changed { began_with: expected.name().to_owned(), serves })
    }

    /// Judges a component as if it were put, and lets a trial use it.
    fn try_out(
        &self,
        route_key: &RouteKey,
        candidate: &Candidate,
        author: &PutAuthor,
        expect_same: bool,
        trial: &Trial,
    ) -> Result<PutResult, RolloutError> {
        let before = self.entries.lock().get(route_key).and_then(|entry| entry.serving.clone());
        let judged = self.evaluate(route_key, candidate, before.as_ref().map(|before| &*before.version));
        if let Err(RolloutError::Cases(_) | RolloutError::Shadow(_)) = &judged {
            // It runs, and may not serve: its author wants to see it at work all the same.
            let made = self.make(route_key, &candidate.component, &candidate.digest, &candidate.definition);
            if let Ok((guest, rules)) = made {
                self.run_trial(route_key, candidate, guest, rules, trial);
            }
        }
        let judged = judged.and_then(|judged| same_if_expected(judged, expect_same));
        let Evaluated { guest, rules, comparison } =
            judged.inspect_err(|error| self.penalise(author, error))?;
        let (tag, digest) = (guest.tag.to_string(), guest.digest.clone());
        self.run_trial(route_key, candidate, guest, rules, trial);
        Ok(PutResult { guest: tag, digest, state: "tried", comparison })
    }

    /// Lets a trial use a candidate, alone on a host of its own.
    fn run_trial(
        &self,
        route_key: &RouteKey,
        candidate: &Candidate,
        guest: Arc<Guest>,
        rules: RouteRules,
        trial: &Trial,
    ) {
        let version = RouteVersion::new(guest, rules, candidate.version(), RouteActivity::of_trial());
        (trial.0)(Arc::new(self.host.single_route(route_key, version, self.host.state().copy())));
    }

    /// Has a tenant wait whose component costs the compiler too much.
    fn penalise(&self, author: &PutAuthor, error: &RolloutError) {
        if let (PutAuthor::Tenant(tenant), RolloutError::CompileLimit(_)) = (author, error) {
            // Where the clock ended it, the machine may be at fault.
            let grows = !error.is_of_a_busy_machine();
            self.penalties.record(tenant, grows, Instant::now());
        }
    }

    /// Refuses to take anything from a tenant that has to wait.
    ///
    /// # Errors
    /// It has to wait so long.
    pub fn check_pause(&self, author: &PutAuthor) -> Result<(), RolloutError> {
        match author {
            PutAuthor::Operator => Ok(()),
            PutAuthor::Tenant(tenant) => match self.penalties.left(tenant, Instant::now()) {
                None => Ok(()),
                Some(left) => {
                    Err(RolloutError::Paused { tenant: tenant.clone(), seconds: left.as_secs() + 1 })
                }
            },
        }
    }

    /// Takes a guest out of the folder; its history stays. A route file goes with it only if that alone makes the
    /// route, of a built-in decoder.
    ///
    /// # Errors
    /// There is none, or the folder cannot be written to.
    pub fn remove(&self, route_key: &RouteKey) -> Result<(), RolloutError> {
        let mut entries = self.entries.lock();
        let folder = TenantFolder::open(&self.folder, &route_key.0)
            .map_err(|error| if entries.contains_key(route_key) { error } else { RolloutError::NotThere })?;
        let stem = &route_key.1;
        match folder.remove(&component_name(stem)) {
            Err(RolloutError::NotThere) if entries.contains_key(route_key) => remove_built_in(&folder, stem)?,
            removed => removed?,
        }
        self.retire(&mut entries, route_key);
        self.swap_table(&entries);
        drop(entries);
        self.disk_use.measure(&route_key.0);
        Ok(())
    }
}

/// Puts the file of a candidate in place. A component wins over a built-in decoder, so it makes room for one.
fn lay_down(
    folder: &TenantFolder,
    stem: &str,
    extension: &str,
    candidate: &Candidate,
    staging: Option<&Path>,
) -> Result<(), RolloutError> {
    let RouteDefinition { built_in, route_file, source } = &candidate.definition;
    let Some(_) = built_in else {
        return folder.replace(&component_name(stem), &candidate.component, staging);
    };
    let text = if extension == "toml" { route_file } else { source };
    let text = text.as_deref().unwrap_or_default();
    folder.replace(&format!("{stem}.{extension}"), text.as_bytes(), staging)?;
    match folder.remove(&component_name(stem)) {
        Ok(()) | Err(RolloutError::NotThere) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the files that make the route of a built-in decoder.
fn remove_built_in(folder: &TenantFolder, stem: &str) -> Result<(), RolloutError> {
    if let Some(script) = script_entry(folder, stem)? {
        let why =
            format!("{script} makes the route: remove its folder in the guests folder, which no verb does");
        return Err(RolloutError::RouteFile(why));
    }
    let sources = builtin::sources().map(|source| format!("{stem}.{}", source.extension));
    let mut result = Err(RolloutError::NotThere);
    for name in std::iter::once(route_file_name(stem)).chain(sources) {
        match folder.remove(&name) {
            Ok(()) => result = Ok(()),
            Err(RolloutError::NotThere) => {}
            Err(error) => return Err(error),
        }
    }
    result
}

/// Refuses a version that decodes a remembered message differently, where none may.
fn same_if_expected(judged: Evaluated, expected: bool) -> Result<Evaluated, RolloutError> {
    match judged.comparison {
        Some(comparison) if expected && comparison.different > 0 => Err(RolloutError::Different(comparison)),
        comparison => Ok(Evaluated { comparison, ..judged }),
    }
}

//! The history of routes, on disk: the versions that served, serve and may not serve. The folder
//! holds the wishes of tenants, the history the decisions.
//!
//! ```text
//! routes/{tenant}/{type}/history.json     the versions of the route, newest first
//! routes/{tenant}/{type}/{digest}.wasm    copies of those that have served
//! routes/{tenant}/{type}/{version}.toml   the route's file as it was with that version
//! routes/{tenant}/{type}/{version}.source the source file of a built-in decoder, the same
//! built_in/{digest}.wasm                  built-in decoders that have served, once for all routes
//! ```
//! A version is a component with its route file. A built-in decoder changes with the program, so a copy is kept: the
//! next program does not contain it. `history.json` is replaced whole, by a rename after
//! a sync; files that it does not name are removed. Copies are checked against their digest when they are
//! read, so a damaged one never serves.

use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::builtin;
use crate::candidate::Candidate;
use crate::definition::RouteDefinition;
use crate::digest::digest;
use crate::limits::{BUILT_IN_COPIES_MAX, GUEST_VERSIONS_KEPT};
use tidegate_core::atomic_file::{STAGING, StagedFile, remove_staged};
use tidegate_core::route_key::RouteKey;

/// The outcome of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionOutcome {
    Serves,
    /// It served until another was put in its place.
    Served,
    /// It was not let in.
    Refused,
    /// It served, and was rolled back to the one before it.
    RolledBack,
}

/// One version of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The component's digest, with that of the route's file where there is one.
    pub version: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// `name@version#digest`, where it came far enough to be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    pub bytes: u64,
    /// The one who put it there: `file`, `operator`, or a tenant's token.
    pub who: String,
    /// The time of the decision, RFC 3339.
    pub when: String,
    pub outcome: VersionOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The digest of the cases that it was evaluated with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cases: Option<String>,
    /// The name of the built-in decoder that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_in: Option<String>,
}

/// A route's versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRecord {
    /// The version that serves, or would if its file lay in the folder.
    pub serving: Option<String>,
    /// The version to go back to while the one that serves is on probation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation_over: Option<String>,
    /// Newest first.
    pub versions: Vec<VersionRecord>,
}

impl RouteRecord {
    /// Adds the outcome of a version, as the newest.
    pub fn add(&mut self, mut version: VersionRecord) {
        self.versions.retain(|known| known.version != version.version);
        // One decision may be about two versions; each has its own place in time.
        while self.versions.iter().any(|known| known.when == version.when) {
            let Ok(when) = version.when.parse::<Timestamp>() else { break };
            version.when = (when + SignedDuration::from_nanos(1)).to_string();
        }
        self.versions.insert(0, version);
        let is_in_use = |record: &Self, version: &str| {
            record.serving.as_deref() == Some(version) || record.probation_over.as_deref() == Some(version)
        };
        while self.versions.len() > GUEST_VERSIONS_KEPT {
            let oldest = self.versions.iter().rposition(|known| !is_in_use(self, &known.version));
            let Some(oldest) = oldest else { return };
            self.versions.remove(oldest);
        }
    }

    /// True if any of its versions has served.
    pub fn has_served(&self) -> bool {
        self.versions.iter().any(|known| known.outcome != VersionOutcome::Refused)
    }

    pub fn find(&self, version: &str) -> Option<&VersionRecord> {
        self.versions.iter().find(|known| known.version == version)
    }

    /// The record that forbids another try of a version. One that its cases refused is tried again with
    /// other cases.
    pub fn refusal(&self, version: &str, cases: Option<&str>) -> Option<&VersionRecord> {
        self.find(version).filter(|known| match known.outcome {
            VersionOutcome::RolledBack => true,
            VersionOutcome::Refused => known.cases.as_deref() == cases,
            VersionOutcome::Serves | VersionOutcome::Served => false,
        })
    }

    /// The version that a rollback goes to: the last that served and was not rolled back itself.
    pub fn previous(&self) -> Option<&VersionRecord> {
        self.versions.iter().find(|known| {
            known.outcome == VersionOutcome::Served && self.serving.as_deref() != Some(known.version.as_str())
        })
    }
}

/// The versions of all routes.
#[derive(Clone, Debug)]
pub struct RouteHistory {
    folder: PathBuf,
    /// Copies of built-in decoders.
    built_in: PathBuf,
    staging: PathBuf,
    /// True for a verb beside a gateway, which reads and changes nothing.
    read_only: bool,
    /// True while each file is synced when it is written.
    syncs: Arc<AtomicBool>,
}

impl RouteHistory {
    /// The history in a data folder.
    pub fn new(data_dir: &Path, read_only: bool) -> Self {
        let [folder, built_in, staging] = ["routes", "built_in", STAGING].map(|name| data_dir.join(name));
        if !read_only {
            remove_staged(&staging);
        }
        Self { folder, built_in, staging, read_only, syncs: Arc::new(AtomicBool::new(true)) }
    }

    /// Syncs the writes of `write_much` once, at its end: a thousand routes are new at a first start. A
    /// power cut meanwhile may leave files that cannot be read, and they are made anew.
    ///
    /// # Errors
    /// The fault of `write_much`.
    pub fn sync_once<T, E>(&self, write_much: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.syncs.store(false, Ordering::Relaxed);
        let written = write_much();
        self.syncs.store(true, Ordering::Relaxed);
        if let Ok(folder) = fs::File::open(&self.folder) {
            // SAFETY: syncfs(2) of a descriptor that is open.
            if unsafe { libc::syncfs(folder.as_raw_fd()) } != 0 {
                tracing::error!(error = %std::io::Error::last_os_error(), "guests' histories cannot be synced");
            }
        }
        written
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut staged = StagedFile::create(&self.staging)?;
        staged.write_all(bytes)?;
        match self.syncs.load(Ordering::Relaxed) {
            true => staged.install(path),
            false => staged.install_unsynced(path),
        }
    }

    /// The folder in which files are staged.
    pub fn staging(&self) -> &Path {
        &self.staging
    }

    /// The folder with the histories of one tenant.
    pub fn tenant_folder(&self, tenant: &str) -> PathBuf {
        self.folder.join(tenant)
    }

    /// Removes the histories of a tenant's routes that are gone, but for the `keep` newest.
    pub fn forget(&self, tenant: &str, keep: usize, is_gone: impl Fn(&str) -> bool) {
        if self.read_only {
            return;
        }
        let Ok(entries) = fs::read_dir(self.tenant_folder(tenant)) else { return };
        let gone = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&is_gone));
        let mut gone: Vec<_> = gone
            .map(|entry| (entry.metadata().and_then(|metadata| metadata.modified()).ok(), entry.path()))
            .collect();
        gone.sort();
        gone.truncate(gone.len().saturating_sub(keep));
        for (_, folder) in gone {
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::warn!(%error, folder = %folder.display(), "an old history of a guest cannot be removed");
            }
        }
    }

    fn folder_of(&self, (tenant, stem): &RouteKey) -> PathBuf {
        self.folder.join(tenant).join(stem)
    }

    /// The record of a route; an empty one where there is none or none that can be read, which is
    /// logged.
    pub fn read(&self, route_key: &RouteKey) -> RouteRecord {
        let path = self.folder_of(route_key).join("history.json");
        let read = fs::read(&path).map_err(|error| error.to_string());
        match read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
            Ok(record) => record,
            Err(error) => {
                if path.exists() {
                    tracing::warn!(path = %path.display(), error, "a guest's history cannot be read");
                }
                RouteRecord::default()
            }
        }
    }

    /// Replaces the record of a route, and forgets the copies that it does not name.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, route_key: &RouteKey, record: &RouteRecord) -> std::io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let folder = self.folder_of(route_key);
        self.make(&folder)?;
        self.replace(&folder.join("history.json"), &serde_json::to_vec_pretty(record)?)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let named = match path.extension().and_then(|extension| extension.to_str()) {
                Some("wasm") => record
                    .versions
                    .iter()
                    .any(|known| known.digest == stem && known.outcome != VersionOutcome::Refused),
                Some("toml" | "source") => record.find(stem).is_some(),
                _ => !is_left_behind(&entry),
            };
            if !named {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// The texts of a version that was kept.
    pub fn definition(&self, route_key: &RouteKey, version: &VersionRecord) -> RouteDefinition {
        let folder = self.folder_of(route_key);
        let text = |extension: &str| {
            fs::read_to_string(folder.join(format!("{}.{extension}", version.version))).ok()
        };
        let built_in = version.built_in.clone();
        RouteDefinition { built_in, route_file: text("toml"), source: text("source") }
    }

    /// Keeps a copy of a version.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&self, route_key: &RouteKey, candidate: &Candidate) -> std::io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let folder = self.folder_of(route_key);
        self.make(&folder)?;
        let Candidate { component, digest, definition, .. } = candidate;
        let copies = match definition.built_in {
            Some(_) => &self.built_in,
            None => &folder,
        };
        self.make(copies)?;
        let copy = copies.join(format!("{digest}.wasm"));
        if fs::metadata(&copy).map_or(0, |metadata| metadata.len()) != component.len() as u64 {
            self.replace(&copy, component)?;
        }
        let version = candidate.version();
        for (extension, text) in [("toml", &definition.route_file), ("source", &definition.source)] {
            if let Some(text) = text {
                self.replace(&folder.join(format!("{version}.{extension}")), text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The copy of a version: the component and its texts.
    pub fn copy(
        &self,
        route_key: &RouteKey,
        version: &VersionRecord,
    ) -> Option<(Cow<'static, [u8]>, RouteDefinition)> {
        let definition = self.definition(route_key, version);
        if let Some(built_in) = builtin::of_digest(&version.digest) {
            return Some((built_in.component.into(), definition));
        }
        let copies = match version.built_in {
            Some(_) => self.built_in.clone(),
            None => self.folder_of(route_key),
        };
        let component = fs::read(copies.join(format!("{}.wasm", version.digest))).ok()?;
        if digest(&component) != version.digest {
            tracing::error!(folder = %copies.display(), version.digest, "the copy of a guest is damaged");
            return None;
        }
        Some((component.into(), definition))
    }

    /// The folder with copies of built-in decoders.
    pub fn built_in_folder(&self) -> &Path {
        &self.built_in
    }

    /// Removes the oldest copies of built-in decoders that no route uses, but for some.
    pub fn forget_built_ins(&self, is_in_use: impl Fn(&str) -> bool) {
        if self.read_only {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.built_in) else { return };
        let mut unused: Vec<_> = entries
            .flatten()
            .filter(|entry| !entry.path().file_stem().and_then(|stem| stem.to_str()).is_some_and(&is_in_use))
            .map(|entry| (entry.metadata().and_then(|metadata| metadata.modified()).ok(), entry.path()))
            .collect();
        unused.sort();
        unused.truncate(unused.len().saturating_sub(BUILT_IN_COPIES_MAX));
        for (_, copy) in unused {
            let _ = fs::remove_file(copy);
        }
    }

    fn make(&self, folder: &Path) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }
}

/// True for a file that a power cut left before it was renamed, also by earlier versions.
fn is_left_behind(entry: &fs::DirEntry) -> bool {
    let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|at| at.elapsed());
    entry.file_name().to_string_lossy().starts_with('.')
        && matches!(age, Ok(Ok(age)) if age > Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest;
    use std::fs;

    fn version(name: &str, outcome: VersionOutcome) -> VersionRecord {
        VersionRecord {
            version: name.into(),
            digest: digest(name.as_bytes()),
            guest: None,
            bytes: 1,
            who: "file".into(),
            when: "2026-01-01T00:00:00Z".into(),
            outcome,
            reason: None,
            cases: None,
            built_in: None,
        }
    }

    #[test]
    fn the_last_five_versions_are_kept_and_the_one_that_serves_always() {
        let mut record = RouteRecord { serving: Some("a".into()), ..RouteRecord::default() };
        record.add(version("a", VersionOutcome::Serves));
        for name in ["b", "c", "d", "e", "f", "g"] {
            record.add(version(name, VersionOutcome::Refused));
        }
        let names: Vec<_> = record.versions.iter().map(|version| version.version.as_str()).collect();
        assert_eq!(names, ["g", "f", "e", "d", "a"]);
    }

    #[test]
    fn no_two_versions_have_one_time() {
        let mut record = RouteRecord::default();
        for name in ["a", "b", "c"] {
            record.add(version(name, VersionOutcome::Served));
        }
        let times: Vec<_> = record.versions.iter().map(|version| &*version.when).collect();
        let first = "2026-01-01T00:00:00Z";
        assert_eq!(times, ["2026-01-01T00:00:00.000000002Z", "2026-01-01T00:00:00.000000001Z", first]);
    }

    #[test]
    fn what_was_refused_is_tried_again_with_other_cases_and_what_was_rolled_back_is_not() {
        let mut record = RouteRecord::default();
        let cases = Some("cases-1".to_owned());
        record.add(VersionRecord { cases: cases.clone(), ..version("a", VersionOutcome::Refused) });
        record.add(VersionRecord { cases, ..version("b", VersionOutcome::RolledBack) });
        assert!(record.refusal("a", Some("cases-1")).is_some());
        assert!(record.refusal("a", Some("cases-2")).is_none());
        assert!(record.refusal("b", Some("cases-2")).is_some());
        assert!(record.refusal("c", None).is_none());
    }

    #[test]
    fn a_rollback_goes_to_the_last_that_served_and_was_not_rolled_back() {
        let mut record = RouteRecord { serving: Some("d".into()), ..RouteRecord::default() };
        for (name, outcome) in [
            ("a", VersionOutcome::Served),
            ("b", VersionOutcome::Served),
            ("c", VersionOutcome::RolledBack),
            ("x", VersionOutcome::Refused),
            ("d", VersionOutcome::Serves),
        ] {
            record.add(version(name, outcome));
        }
        assert_eq!(record.previous().unwrap().version, "b");
    }

    /// A component of these bytes with a route file.
    fn candidate(bytes: &'static [u8], built_in: Option<&str>) -> Candidate {
        let built_in = built_in.map(str::to_owned);
        let definition =
            RouteDefinition { built_in, route_file: Some("x = 1".into()), source: Some("s".into()) };
        Candidate { definition, ..Candidate::alone(bytes.to_vec()) }
    }

    fn recorded(candidate: &Candidate, outcome: VersionOutcome) -> VersionRecord {
        let (digest, built_in) = (candidate.digest.clone(), candidate.definition.built_in.clone());
        VersionRecord { digest, built_in, ..version(&candidate.version(), outcome) }
    }

    #[test]
    fn copies_that_no_version_names_are_removed_and_a_damaged_one_is_not_given() {
        let folder = tempfile::TempDir::new().unwrap();
        let history = RouteHistory::new(folder.path(), false);
        let route_key = ("acme".to_owned(), "boiler".to_owned());
        let (a, b) = (candidate(b"a", None), candidate(b"b", None));
        let mut record = RouteRecord::default();
        for (candidate, outcome) in [(&a, VersionOutcome::Served), (&b, VersionOutcome::Serves)] {
            history.keep(&route_key, candidate).unwrap();
            record.add(recorded(candidate, outcome));
        }
        history.write(&route_key, &record).unwrap();
        assert_eq!(history.read(&route_key), record);
        let [of_b, of_a] = &record.versions.clone()[..] else { panic!("{record:?}") };
        let (component, definition) = history.copy(&route_key, of_a).unwrap();
        assert_eq!((&*component, &definition), (&b"a"[..], &a.definition));
        record.versions.retain(|version| version.version == b.version());
        history.write(&route_key, &record).unwrap();
        assert_eq!(history.copy(&route_key, of_a), None);
        let copy = folder.path().join("routes/acme/boiler").join(format!("{}.wasm", b.digest));
        fs::write(copy, b"B").unwrap();
        assert_eq!(history.copy(&route_key, of_b), None);
    }

    #[test]
    fn a_built_in_decoder_of_an_earlier_program_is_kept_once_for_all_routes() {
        let folder = tempfile::TempDir::new().unwrap();
        let history = RouteHistory::new(folder.path(), false);
        let earlier = candidate(b"json of the last program", Some("json"));
        let mut record = RouteRecord::default();
        record.add(recorded(&earlier, VersionOutcome::Serves));
        for route in ["a", "b"] {
            let route_key = ("acme".to_owned(), route.to_owned());
            history.keep(&route_key, &earlier).unwrap();
            history.write(&route_key, &record).unwrap();
            let (component, definition) = history.copy(&route_key, &record.versions[0]).unwrap();
            assert_eq!((&*component, definition), (&*earlier.component, earlier.definition.clone()));
            let own = fs::read_dir(folder.path().join("routes/acme").join(route)).unwrap();
            assert!(own.flatten().all(|entry| entry.path().extension().unwrap() != "wasm"));
        }
        for index in 0..2 * BUILT_IN_COPIES_MAX {
            fs::write(history.built_in_folder().join(format!("{index}.wasm")), "").unwrap();
        }
        history.forget_built_ins(|digest| digest == earlier.digest);
        assert_eq!(fs::read_dir(history.built_in_folder()).unwrap().count(), BUILT_IN_COPIES_MAX + 1);
        let route_key = ("acme".to_owned(), "a".to_owned());
        assert!(history.copy(&route_key, &record.versions[0]).is_some());
    }
}

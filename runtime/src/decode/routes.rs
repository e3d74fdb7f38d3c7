//! The guests folder as routing table.
//!
//! Looked up in this order: `tenant/type`, `tenant/_any`, `_default/type`, `_default/_any`. A file
//! that changes is loaded off the decode path and the table is swapped whole; one that is not good
//! leaves what served before, and says why.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use wasmtime::Engine;

use super::DecodeSettings;
use super::compile::Compiler;
use super::engine::{self, EpochClock};
use super::guest::{Guest, GuestError};
use super::instance::{CallFault, Instance};
use super::route_file::RouteRules;
use crate::domain::guest_path::file_name;
use crate::domain::reason::Reason;

/// What a route has done.
#[derive(Debug, Default)]
pub struct RouteStats {
    pub messages: AtomicU64,
    cpu_ns: AtomicU64,
    failures: [AtomicU64; 5],
}

/// The kinds of failures that are counted, with the reasons they stand for.
pub const FAILURES: [(Reason, &str); 5] = [
    (Reason::GuestRefused, "refused"),
    (Reason::GuestTrap, "trap"),
    (Reason::GuestDeadline, "deadline"),
    (Reason::GuestMemory, "memory"),
    (Reason::GuestOutput, "output"),
];

impl RouteStats {
    pub fn note_call(&self, messages: u64, cpu: Duration) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.cpu_ns.fetch_add(cpu.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn note_failure(&self, reason: Reason) {
        if let Some(place) = FAILURES.iter().position(|(known, _)| *known == reason) {
            self.failures[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }

    /// (kind, messages) of those that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAILURES.iter().zip(&self.failures).map(|((_, kind), count)| (*kind, count.load(Ordering::Relaxed)))
    }
}

/// A guest with the rules of its place in the folder.
#[derive(Debug)]
pub struct Route {
    pub guest: Guest,
    pub rules: RouteRules,
    pub stats: Arc<RouteStats>,
}

/// Folder and file stem, both as they are named on disk.
type Place = (String, String);

/// The routes at one moment.
#[derive(Debug, Default)]
pub struct RoutingTable {
    routes: HashMap<Place, Arc<Route>>,
}

impl RoutingTable {
    /// The route that decodes a message type of a tenant.
    pub fn route(&self, tenant: &str, message_type: &str) -> Option<Arc<Route>> {
        let (tenant, message_type) = (file_name(tenant), file_name(message_type));
        let places = [
            (tenant.clone(), message_type.clone()),
            (tenant, ANY.to_owned()),
            (DEFAULT.to_owned(), message_type),
            (DEFAULT.to_owned(), ANY.to_owned()),
        ];
        // An empty name is no file's.
        places
            .iter()
            .filter(|(folder, stem)| !folder.is_empty() && !stem.is_empty())
            .find_map(|place| self.routes.get(place).cloned())
    }
}

const DEFAULT: &str = "_default";
const ANY: &str = "_any";

/// What is said of a file in the folder.
#[derive(Clone, Debug, Serialize)]
pub struct GuestInfo {
    /// The folder: a tenant, or `_default`.
    pub tenant: String,
    /// The message type, or `_any`.
    #[serde(rename = "type")]
    pub message_type: String,
    pub file: String,
    /// `serving`, or `refused` when what lies there does not serve (an older one may).
    pub state: &'static str,
    /// What serves: `name@version#digest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why what lies there does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub messages: u64,
    pub cpu_seconds: f64,
    pub failures: BTreeMap<&'static str, u64>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let Ok(metadata) = fs::metadata(path) else { return Self::default() };
        Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file of the folder as it was last looked at.
#[derive(Debug)]
struct Seen {
    path: PathBuf,
    /// Of the component and of its TOML file.
    stamps: [Stamp; 2],
    serving: Option<Arc<Route>>,
    error: Option<String>,
}

/// What a look at the folder has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Serves { tenant: String, message_type: String, guest: String, replaced: Option<String> },
    Refused { tenant: String, message_type: String, why: String },
    Gone { tenant: String, message_type: String },
}

/// The guests of this gateway.
pub struct GuestStore {
    folder: PathBuf,
    settings: DecodeSettings,
    engine: Engine,
    compiler: Compiler,
    clock: Arc<EpochClock>,
    seen: Mutex<BTreeMap<Place, Seen>>,
    /// New files by what became of them.
    swaps: Mutex<BTreeMap<(Place, &'static str), u64>>,
    table: RwLock<Arc<RoutingTable>>,
    /// Grows with each new table.
    generation: AtomicU64,
}

impl GuestStore {
    /// Makes the engine and loads what lies in the folder; files that are not good are among the
    /// changes.
    ///
    /// # Errors
    /// The folder cannot be read, or the host gives no engine.
    pub fn open(folder: &Path, settings: DecodeSettings) -> Result<(Self, Vec<Change>), GuestError> {
        let engine = engine::engine(&settings)
            .map_err(|error| GuestError::Start(format!("the sandbox cannot be set up: {error:#}")))?;
        let store = Self {
            folder: folder.to_owned(),
            compiler: Compiler::new(settings.compiler.clone(), &engine)?,
            settings,
            clock: EpochClock::start(&engine)?,
            engine,
            seen: Mutex::default(),
            swaps: Mutex::default(),
            table: RwLock::default(),
            generation: AtomicU64::new(1),
        };
        let changes = store.refresh()?;
        Ok((store, changes))
    }

    /// A new instance of a guest for one tenant's route; the inner error is the guest's refusal.
    ///
    /// # Errors
    /// The guest faults while it starts, or no instance is free.
    pub fn start(
        &self,
        guest: &Guest,
        rules: &RouteRules,
        tenant: &str,
        message_type: &str,
    ) -> Result<Result<Instance, String>, CallFault> {
        Instance::new(&self.engine, &self.clock, guest, rules, tenant, message_type)
    }

    pub fn settings(&self) -> &DecodeSettings {
        &self.settings
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn table(&self) -> Arc<RoutingTable> {
        self.table.read().clone()
    }

    /// Looks at the folder again and takes up what has changed.
    ///
    /// # Errors
    /// The folder cannot be read; what served goes on.
    pub fn refresh(&self) -> Result<Vec<Change>, GuestError> {
        let files = self.files()?;
        let mut seen = self.seen.lock();
        let mut changes = Vec::new();
        let gone: Vec<Place> = seen.keys().filter(|place| !files.contains_key(*place)).cloned().collect();
        for place in gone {
            seen.remove(&place);
            changes.push(Change::Gone { tenant: place.0, message_type: place.1 });
        }
        for (place, path) in files {
            let stamps = [Stamp::of(&path), Stamp::of(&path.with_extension("toml"))];
            if seen.get(&place).is_some_and(|seen| seen.stamps == stamps) {
                continue;
            }
            let before = seen.get(&place).and_then(|seen| seen.serving.clone());
            let count = |outcome| *self.swaps.lock().entry((place.clone(), outcome)).or_default() += 1;
            let (tenant, message_type) = place.clone();
            let (serving, error) = match self.load(&path, &place, before.as_ref()) {
                Ok(route) => {
                    count(if before.is_some() { "replaced" } else { "new" });
                    let guest = route.guest.tag.to_string();
                    let replaced = before.map(|before| before.guest.tag.to_string());
                    changes.push(Change::Serves { tenant, message_type, guest, replaced });
                    (Some(Arc::new(route)), None)
                }
                Err(error) => {
                    count("refused");
                    let why = error.to_string();
                    changes.push(Change::Refused { tenant, message_type, why: why.clone() });
                    (before, Some(why))
                }
            };
            seen.insert(place, Seen { path, stamps, serving, error });
        }
        if !changes.is_empty() {
            let routes = seen.iter().filter_map(|(place, seen)| Some((place.clone(), seen.serving.clone()?)));
            *self.table.write() = Arc::new(RoutingTable { routes: routes.collect() });
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(changes)
    }

    /// Every component in the folder's folders.
    fn files(&self) -> Result<BTreeMap<Place, PathBuf>, GuestError> {
        let mut files = BTreeMap::new();
        for folder in fs::read_dir(&self.folder)? {
            let folder = folder?;
            let (Ok(tenant), true) = (folder.file_name().into_string(), folder.path().is_dir()) else {
                continue;
            };
            if tenant.starts_with('.') {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let path = file?.path();
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                if let (Some("wasm"), Some(stem)) = (path.extension().and_then(|e| e.to_str()), stem)
                    && !stem.starts_with('.')
                {
                    files.insert((tenant.clone(), stem.to_owned()), path.clone());
                }
            }
        }
        Ok(files)
    }

    fn load(&self, path: &Path, place: &Place, before: Option<&Arc<Route>>) -> Result<Route, GuestError> {
        let folder = fs::canonicalize(&self.folder)?;
        for file in [path.to_owned(), path.with_extension("toml")] {
            if fs::canonicalize(&file).is_ok_and(|real| !real.starts_with(&folder)) {
                return Err(GuestError::Outside);
            }
        }
        let bytes = fs::metadata(path)?.len();
        if bytes > self.settings.component_bytes_max {
            return Err(GuestError::TooLarge { bytes, most: self.settings.component_bytes_max });
        }
        let rules = match fs::read_to_string(path.with_extension("toml")) {
            Ok(text) => RouteRules::parse(&text, &self.settings).map_err(GuestError::RouteFile)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                RouteRules::of_gateway(&self.settings)
            }
            Err(error) => return Err(error.into()),
        };
        let guest = Guest::load(&self.engine, &self.compiler, &fs::read(path)?, &place.1)?;
        self.try_out(&guest, &rules, place)?;
        let stats = before.map(|before| before.stats.clone()).unwrap_or_default();
        Ok(Route { guest, rules, stats })
    }

    /// (tenant, type, outcome, how often): files that were taken up, or not.
    pub fn swaps(&self) -> Vec<(String, String, &'static str, u64)> {
        let swaps = self.swaps.lock();
        swaps
            .iter()
            .map(|(((tenant, stem), outcome), count)| (tenant.clone(), stem.clone(), *outcome, *count))
            .collect()
    }

    /// What lies in the folder and what serves.
    pub fn list(&self) -> Vec<GuestInfo> {
        let seen = self.seen.lock();
        seen.iter()
            .map(|((tenant, message_type), seen)| {
                let stats = seen.serving.as_ref().map(|route| &route.stats);
                GuestInfo {
                    tenant: tenant.clone(),
                    message_type: message_type.clone(),
                    file: seen.path.display().to_string(),
                    state: if seen.error.is_none() { "serving" } else { "refused" },
                    guest: seen.serving.as_ref().map(|route| route.guest.tag.to_string()),
                    digest: seen.serving.as_ref().map(|route| route.guest.digest.clone()),
                    error: seen.error.clone(),
                    messages: stats.map_or(0, |stats| stats.messages.load(Ordering::Relaxed)),
                    cpu_seconds: stats.map_or(0.0, |stats| stats.cpu().as_secs_f64()),
                    failures: stats.map(|stats| stats.failures().collect()).unwrap_or_default(),
                }
            })
            .collect()
    }

    /// Starts a guest once as it would be started to serve. A guest for any type is started only:
    /// nobody can say what types it will be asked for.
    fn try_out(&self, guest: &Guest, rules: &RouteRules, (tenant, stem): &Place) -> Result<(), GuestError> {
        match self.start(guest, rules, tenant, stem) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if stem == ANY => Ok(()),
            Ok(Err(refusal)) => Err(GuestError::Configure(refusal)),
            // No instance is free to try it: it is tried by its first message.
            Err(CallFault::Host(_)) => Ok(()),
            Err(CallFault::Guest(reason, what)) => Err(GuestError::Start(format!("{reason}: {what}"))),
        }
    }
}

//! The guests of this gateway: what the folder wishes, what serves, and how one becomes the other.
//!
//! - A file that changes is judged off the data path (`loader`), one at a time: compiled in a child
//!   process, started once, run on its cases and on the route's last messages. Until it has passed,
//!   what served goes on; the routing table is swapped whole.
//! - What was decided is in `history` before it holds: a version that was refused or rolled back is
//!   not tried again until its file changes, over restarts too, and at start the last good one
//!   serves where the folder holds nothing better.
//! - A new version is on probation over the one before it, which comes back by itself.

mod refresh;
mod put;
mod trial;
mod verdict;
mod rollback;
mod listing;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::DecodeSettings;
use super::folder::{self, Stamps};
use super::guest::{Guest, GuestError};
use super::history::{History, Place, Record};
use super::instance::{CallFault, Instance};
use super::large::{Class, grant};
use super::loader::Queue;
use super::routes::{Route, RoutingTable};
use super::sandbox::Sandboxes;
use super::state::StateStore;
use crate::domain::limits::{GUEST_PUTS_WAITING_MAX, LARGE_PUTS_WAITING_MAX};

pub use listing::{GuestInfo, ProbationInfo};
pub use put::Put;
pub use rollback::RolledBack;

/// Runs a route's cases.
pub trait RunCases: Send + Sync {
    /// # Errors
    /// A case failed, or is none; in words.
    fn run(&self, guest: Arc<GuestStore>, cases: &str) -> Result<(), String>;
}

/// Where the store keeps what serves, and how it tries out what may.
pub struct Keeping {
    /// Made where it is not there.
    pub data: PathBuf,
    /// A verb beside a gateway looks and changes nothing.
    pub read_only: bool,
    pub cases: Option<Arc<dyn RunCases>>,
}

/// A file of the folder as it was last looked at.
#[derive(Debug)]
struct Seen {
    path: PathBuf,
    stamps: Stamps,
    serving: Option<Arc<Route>>,
    error: Option<String>,
    record: Record,
    /// It waits to be judged, or is.
    queued: bool,
    /// Not before then: the fault was ours.
    again: Option<Instant>,
}

impl Seen {
    fn new(path: PathBuf, record: Record) -> Self {
        Self {
            path,
            stamps: Stamps::default(),
            serving: None,
            error: None,
            record,
            queued: false,
            again: None,
        }
    }

    /// It was judged as it is now.
    fn settle(&mut self, stamps: Stamps) {
        self.stamps = stamps;
        self.queued = false;
        self.again = None;
    }
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Serves { tenant: String, message_type: String, guest: String, replaced: Option<String> },
    Refused { tenant: String, message_type: String, why: String },
    RolledBack { tenant: String, message_type: String, guest: String, why: String },
    Gone { tenant: String, message_type: String },
}

/// The guests of this gateway.
pub struct GuestStore {
    folder: PathBuf,
    settings: DecodeSettings,
    sandboxes: Sandboxes,
    /// What guests keep between messages.
    kept: Arc<StateStore>,
    history: Option<History>,
    cases: Option<Arc<dyn RunCases>>,
    /// What is loaded, by its name: routes with the same component share it.
    loaded: Mutex<HashMap<String, Weak<Guest>>>,
    seen: Mutex<BTreeMap<Place, Seen>>,
    /// New files by what became of them.
    swaps: Mutex<BTreeMap<(Place, &'static str), u64>>,
    /// What nobody was told of yet.
    changes: Mutex<Vec<Change>>,
    table: RwLock<Arc<RoutingTable>>,
    /// Grows with each new table.
    generation: AtomicU64,
    pub(super) queue: Queue,
    /// Of places that are granted the class large: what takes long there keeps no other waiting.
    pub(super) large_queue: Queue,
}

impl GuestStore {
    /// Makes the engine and loads what lies in the folder, and nothing else: nothing is kept.
    ///
    /// # Errors
    /// The folder cannot be read, or the host gives no engine.
    pub fn open(folder: &Path, settings: DecodeSettings) -> Result<(Self, Vec<Change>), GuestError> {
        Self::open_with(folder, settings, Arc::default(), None)
    }

    /// Makes the engine, brings back what served, and judges what lies in the folder; files that are
    /// not good are among the changes.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(
        folder: &Path,
        settings: DecodeSettings,
        kept: Arc<StateStore>,
        keeping: Option<Keeping>,
    ) -> Result<(Self, Vec<Change>), GuestError> {
        let sandboxes = Sandboxes::new(&settings)?;
        let (history, cases) = match keeping {
            Some(keeping) => {
                (Some(History::new(keeping.data.join("routes"), keeping.read_only)), keeping.cases)
            }
            None => (None, None),
        };
        let store = Self {
            folder: folder.to_owned(),
            settings,
            sandboxes,
            kept,
            history,
            cases,
            loaded: Mutex::default(),
            seen: Mutex::default(),
            swaps: Mutex::default(),
            changes: Mutex::default(),
            table: RwLock::default(),
            generation: AtomicU64::new(1),
            queue: Queue::new(GUEST_PUTS_WAITING_MAX),
            large_queue: Queue::new(LARGE_PUTS_WAITING_MAX),
        };
        let look = || -> Result<(), GuestError> {
            for (place, path) in folder::files(folder)?.0 {
                store.first_look(&place, &path);
            }
            Ok(())
        };
        match &store.history {
            Some(history) => history.sync_once(look)?,
            None => look()?,
        }
        store.swap_table(&store.seen.lock());
        let changes = store.take_changes();
        Ok((store, changes))
    }

    /// A store of one route, to try it out: it shares the engine and nothing else. What it keeps begins
    /// as `kept`.
    pub fn alone(&self, place: &Place, route: Arc<Route>, kept: Arc<StateStore>) -> Self {
        Self {
            folder: self.folder.clone(),
            settings: DecodeSettings { threads: 1, ..self.settings.clone() },
            sandboxes: self.sandboxes.clone(),
            kept,
            history: None,
            cases: None,
            loaded: Mutex::default(),
            seen: Mutex::default(),
            swaps: Mutex::default(),
            changes: Mutex::default(),
            table: RwLock::new(Arc::new(std::iter::once((place.clone(), route)).collect())),
            generation: AtomicU64::new(1),
            queue: Queue::new(0),
            large_queue: Queue::new(0),
        }
    }

    /// A new instance of a route's guest for one tenant; the inner error is the guest's refusal.
    ///
    /// # Errors
    /// The guest faults while it starts, or no instance is free.
    pub fn start(
        &self,
        route: &Route,
        tenant: &str,
        message_type: &str,
    ) -> Result<Result<Instance, String>, CallFault> {
        Instance::new(self.sandboxes.of(route.rules.class), &self.kept, route, tenant, message_type)
    }

    /// Whether somebody waits for an instance of the class large; true once for each time that one was
    /// not to be had.
    pub fn wants_large_back(&self) -> bool {
        self.sandboxes.of(Class::Large).places.as_ref().is_some_and(|places| places.are_wanted())
    }

    /// What guests keep between messages.
    pub fn kept(&self) -> &Arc<StateStore> {
        &self.kept
    }

    /// Whether any guest that serves keeps something.
    pub fn any_keeps_state(&self) -> bool {
        let seen = self.seen.lock();
        seen.values().any(|seen| seen.serving.as_ref().is_some_and(|route| route.guest.imports_state))
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

    /// Where what is to be judged at a place waits.
    pub(super) fn queue_of(&self, place: &Place) -> &Queue {
        match self.settings.granted(place) {
            Class::Normal => &self.queue,
            Class::Large => &self.large_queue,
        }
    }

    /// The largest component that a place may have.
    pub fn component_bytes_max(&self, place: &Place) -> u64 {
        self.settings.ceilings(self.settings.granted(place)).component_bytes_max
    }

    fn too_large(&self, place: &Place, bytes: u64, most: u64) -> GuestError {
        match self.settings.granted(place) {
            Class::Normal => GuestError::NeedsLarge { bytes, most, grant: grant(place) },
            Class::Large => GuestError::TooLarge { bytes, most },
        }
    }

    fn path_of(&self, (tenant, stem): &Place) -> PathBuf {
        self.folder.join(tenant).join(format!("{stem}.wasm"))
    }

    fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock())
    }

    fn tell(&self, change: Change) {
        self.changes.lock().push(change);
    }

    fn swap_table(&self, seen: &BTreeMap<Place, Seen>) {
        let routes = seen.iter().filter_map(|(place, seen)| Some((place.clone(), seen.serving.clone()?)));
        *self.table.write() = Arc::new(routes.collect());
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn count(&self, place: &Place, outcome: &'static str) {
        *self.swaps.lock().entry((place.clone(), outcome)).or_default() += 1;
    }

    fn record(&self, place: &Place) -> Record {
        self.history.as_ref().map(|history| history.read(place)).unwrap_or_default()
    }

    /// Writes what was decided. A disk that is full changes nothing of what serves now.
    fn write(&self, place: &Place, record: &Record) {
        if let Some(history) = &self.history
            && let Err(error) = history.write(place, record)
        {
            tracing::error!(%error, tenant = place.0, message_type = place.1, "a guest's history cannot be written");
        }
    }
}

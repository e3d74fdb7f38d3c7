//! The guests of this gateway: what the folder wishes, what serves, and how one becomes the other.
//!
//! - A file that changes is judged off the data path (`loader`), one at a time: compiled in a child
//!   process, started once, run on its cases and on the route's last messages. Until it has passed,
//!   what served goes on; the routing table is swapped whole.
//! - What was decided is in `history` before it holds: a version that was refused or rolled back is
//!   not tried again until its file changes, over restarts too, and at start the last good one
//!   serves where the folder holds nothing better.
//! - A new version is on probation over the one before it, which comes back by itself.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use super::DecodeSettings;
use super::folder::{self, Stamps, Wish};
use super::guest::{Guest, GuestError};
use super::guest_log::LogLine;
use super::history::{self, Fate, History, Place, Record, Version};
use super::instance::{CallFault, Instance};
use super::large::{Class, grant};
use super::loader::Queue;
use super::probation::Probation;
use super::route_file::RouteRules;
use super::routes::{ANY, Route, RouteState, RoutingTable};
use super::sandbox::Sandboxes;
use super::shadow;
use super::slow::Pace;
use super::state::StateStore;
use crate::domain::limits::{GUEST_PUTS_WAITING_MAX, LARGE_PUTS_WAITING_MAX};

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

/// What is said of a file in the folder.
#[derive(Clone, Debug, Serialize)]
pub struct GuestInfo {
    /// The folder: a tenant, or `_default`.
    pub tenant: String,
    /// The message type, or `_any`.
    #[serde(rename = "type")]
    pub message_type: String,
    pub file: String,
    /// `serving`; `refused` when what lies there does not serve (an older one may); `waiting` to be
    /// judged.
    pub state: &'static str,
    /// What serves: `name@version#digest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The version of the interface that what serves was built for, and whether it keeps state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    pub keeps_state: bool,
    /// Why what lies there does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// While a new version is watched: how many messages it has decoded, and on how many it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probation: Option<ProbationInfo>,
    /// `fast`, or `slow`: too much CPU time a message, on threads of its own.
    pub lane: &'static str,
    /// The ceilings that hold for what serves: `normal`, or `large` where the operator grants it.
    pub class: Class,
    pub messages: u64,
    pub cpu_seconds: f64,
    pub failures: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProbationInfo {
    pub messages: u64,
    pub failures: u64,
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

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Serves { tenant: String, message_type: String, guest: String, replaced: Option<String> },
    Refused { tenant: String, message_type: String, why: String },
    RolledBack { tenant: String, message_type: String, guest: String, why: String },
    Gone { tenant: String, message_type: String },
}

/// What became of a component that was put in place.
#[derive(Clone, Debug, Serialize)]
pub struct Put {
    pub guest: String,
    pub digest: String,
    /// `serving`, or `unchanged`: it served already.
    pub state: &'static str,
}

/// What serves after a rollback.
#[derive(Clone, Debug, Serialize)]
pub struct RolledBack {
    pub guest: String,
    pub digest: String,
    /// What served until then.
    pub from: String,
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

/// How long a file waits that could not be judged because of a fault of ours.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The same where the machine was too busy to compile it: the try keeps the loader for half a minute.
const AGAIN_AFTER_BUSY: Duration = Duration::from_secs(60);

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

    fn read_wish(&self, place: &Place, path: &Path) -> Result<Wish, GuestError> {
        Wish::read(&self.folder, path, self.component_bytes_max(place)).map_err(|error| match error {
            GuestError::TooLarge { bytes, most } => self.too_large(place, bytes, most),
            error => error,
        })
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

    fn take_out(&self, seen: &mut BTreeMap<Place, Seen>, place: &Place) {
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

    /// At start: what served serves again, then what lies in the folder is judged.
    fn first_look(&self, place: &Place, path: &Path) {
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

    /// Judges what lies at a place in the folder, and lets it serve if it may.
    pub(super) fn look(&self, place: &Place) {
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

    /// Judges a component, lays it into the folder, and lets it serve. Takes as long as compiling,
    /// cases and shadow run take.
    ///
    /// # Errors
    /// Why it may not serve; then nothing has changed but the history.
    pub fn put_now(&self, place: &Place, component: Vec<u8>, who: &str) -> Result<Put, GuestError> {
        let bytes = component.len() as u64;
        let most = self.component_bytes_max(place);
        if bytes > most {
            return Err(self.too_large(place, bytes, most));
        }
        let folder = self.folder.join(&place.0);
        let path = self.path_of(place);
        let wish = Wish::beside(&self.folder, &path, component)?;
        let before = self.seen.lock().get(place).and_then(|seen| seen.serving.clone());
        let lay = || -> Result<Stamps, GuestError> {
            fs::create_dir_all(&folder)?;
            if !fs::canonicalize(&folder)?.starts_with(fs::canonicalize(&self.folder)?) {
                return Err(GuestError::Outside);
            }
            history::replace(&path, &wish.component).map_err(|error| {
                GuestError::Host(format!("the guests folder cannot be written to: {error}"))
            })?;
            Ok(Stamps::of(&path))
        };
        if let Some(before) = &before
            && before.version == wish.version()
        {
            let stamps = lay()?;
            if let Some(known) = self.seen.lock().get_mut(place) {
                known.settle(stamps);
                known.error = None;
            }
            let (guest, digest) = (before.guest.tag.to_string(), before.guest.digest.clone());
            return Ok(Put { guest, digest, state: "unchanged" });
        }
        let (guest, rules) = match self.judge(place, &wish, before.as_deref()) {
            Ok(judged) => judged,
            Err(error) => {
                self.refuse(place, None, Some(&wish), &error, who);
                return Err(error);
            }
        };
        let put = Put { guest: guest.tag.to_string(), digest: guest.digest.clone(), state: "serving" };
        let stamps = lay()?;
        self.activate(place, stamps, &wish, guest, rules, who);
        Ok(put)
    }

    /// Takes a guest out of the folder; its history stays.
    ///
    /// # Errors
    /// There is none, or the folder cannot be written to.
    pub fn remove(&self, place: &Place) -> Result<(), GuestError> {
        let mut seen = self.seen.lock();
        let path = self.path_of(place);
        if !seen.contains_key(place) && !path.exists() {
            return Err(GuestError::NotThere);
        }
        fs::remove_file(&path)?;
        self.take_out(&mut seen, place);
        self.swap_table(&seen);
        Ok(())
    }

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
    fn look_at_probation(&self, place: &Place, known: &mut Seen, now: Instant) -> bool {
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

    /// Compiles, links and configures a component; the same that serves elsewhere is shared.
    fn make(
        &self,
        place: &Place,
        component: &[u8],
        digest: &str,
        rules: Option<&str>,
    ) -> Result<(Arc<Guest>, RouteRules), GuestError> {
        let rules = match rules {
            Some(text) => RouteRules::parse(text, &self.settings, place).map_err(GuestError::RouteFile)?,
            None => RouteRules::of_gateway(&self.settings, place),
        };
        let (bytes, most) = (component.len() as u64, rules.component_bytes_max);
        if bytes > most {
            return Err(GuestError::TooLarge { bytes, most });
        }
        let name = format!("{digest}/{}/{:?}", place.1, rules.class);
        if let Some(guest) = self.loaded.lock().get(&name).and_then(Weak::upgrade) {
            return Ok((guest, rules));
        }
        let guest = Arc::new(Guest::load(self.sandboxes.of(rules.class), component, digest, &place.1)?);
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, guest| guest.strong_count() > 0);
        loaded.insert(name, Arc::downgrade(&guest));
        Ok((guest, rules))
    }

    /// Whether a version may serve in the place of another: it compiles, starts, passes its cases,
    /// and decodes what the other decodes.
    fn judge(
        &self,
        place: &Place,
        wish: &Wish,
        before: Option<&Route>,
    ) -> Result<(Arc<Guest>, RouteRules), GuestError> {
        let (guest, rules) = self.make(place, &wish.component, &wish.digest, wish.rules.as_deref())?;
        let candidate = Route {
            guest: guest.clone(),
            rules: rules.clone(),
            version: wish.version(),
            state: RouteState::of_trial(),
            pace: Pace::default(),
            probation: None,
        };
        self.try_out(&candidate, place)?;
        if let (Some(runner), Some(cases)) = (&self.cases, &wish.cases) {
            // Cases bring what they need themselves.
            let alone = Arc::new(self.alone(place, candidate.for_trial(), Arc::default()));
            runner.run(alone, cases).map_err(GuestError::Cases)?;
        }
        if let Some(before) = before {
            let messages = before.state.recent.lock().messages();
            shadow::run(self, place, before, &candidate, messages).map_err(GuestError::Shadow)?;
        }
        Ok((guest, rules))
    }

    /// Starts a guest once as it would be started to serve. A guest for any type is started only:
    /// nobody can say what types it will be asked for.
    fn try_out(&self, route: &Route, (tenant, stem): &Place) -> Result<(), GuestError> {
        match self.start(route, tenant, stem) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if stem == ANY => Ok(()),
            Ok(Err(refusal)) => Err(GuestError::Configure(refusal)),
            // No instance is free to try it: it is tried by its first message.
            Err(CallFault::Host(_)) => Ok(()),
            Err(CallFault::Guest(reason, what)) => Err(GuestError::Start(format!("{reason}: {what}"))),
        }
    }

    fn activate(
        &self,
        place: &Place,
        stamps: Stamps,
        wish: &Wish,
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
        let known =
            seen.entry(place.clone()).or_insert_with(|| Seen::new(self.path_of(place), self.record(place)));
        let before = known.serving.take();
        if let Some(probation) = before.as_ref().and_then(|before| before.probation.as_ref()) {
            probation.end();
        }
        let now = jiff::Timestamp::now().to_string();
        let record = &mut known.record;
        let replaced = record.serving.replace(version.clone());
        record.probation_over = before.as_ref().map(|before| before.version.clone());
        if let Some(replaced) = replaced.and_then(|replaced| {
            record.versions.iter_mut().find(|known| known.version == replaced && known.version != version)
        }) {
            replaced.outcome = Fate::Served;
        }
        let tag = guest.tag.to_string();
        record.note(Version {
            version: version.clone(),
            digest: wish.digest.clone(),
            guest: Some(tag.clone()),
            bytes: wish.component.len() as u64,
            who: who.to_owned(),
            when: now,
            outcome: Fate::Serves,
            reason: None,
            cases: wish.cases_digest(),
        });
        self.write(place, record);
        let replaced = before.as_ref().map(|before| before.guest.tag.to_string());
        let state = before.as_ref().map(|before| before.state.clone()).unwrap_or_default();
        let probation = before.map(|before| Probation::new(before, rules.probation));
        let pace = Pace::default();
        known.serving = Some(Arc::new(Route { guest, rules, version, state, pace, probation }));
        known.error = None;
        known.settle(stamps);
        self.swap_table(&seen);
        self.count(place, if replaced.is_some() { "replaced" } else { "new" });
        let (tenant, message_type) = place.clone();
        self.tell(Change::Serves { tenant, message_type, guest: tag, replaced });
    }

    fn refuse(
        &self,
        place: &Place,
        stamps: Option<Stamps>,
        wish: Option<&Wish>,
        error: &GuestError,
        who: &str,
    ) {
        let why = error.to_string();
        let mut seen = self.seen.lock();
        let mut unseen = None;
        let known = match seen.get_mut(place) {
            Some(known) => known,
            None => unseen.insert(Seen::new(PathBuf::new(), self.record(place))),
        };
        let is_news = stamps.is_none() || known.error.as_ref() != Some(&why);
        if let Some(stamps) = stamps {
            known.settle(stamps);
            known.error = Some(why.clone());
        }
        if error.is_ours() {
            known.stamps = Stamps::default();
            let pause = if error.is_of_a_busy_machine() { AGAIN_AFTER_BUSY } else { AGAIN_AFTER };
            known.again = Some(Instant::now() + pause);
        } else if let Some(wish) = wish
            && known.record.serving != Some(wish.version())
        {
            known.record.note(Version {
                version: wish.version(),
                digest: wish.digest.clone(),
                guest: None,
                bytes: wish.component.len() as u64,
                who: who.to_owned(),
                when: jiff::Timestamp::now().to_string(),
                outcome: Fate::Refused,
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
            self.tell(Change::Refused { tenant, message_type, why });
        }
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
                let serving = seen.serving.as_ref();
                let stats = serving.map(|route| &route.state.stats);
                let probation = serving.and_then(|route| route.probation.as_ref()).filter(|p| p.runs());
                let slow = serving.is_some_and(|route| route.is_slow());
                GuestInfo {
                    tenant: tenant.clone(),
                    message_type: message_type.clone(),
                    file: seen.path.display().to_string(),
                    state: match (&seen.error, serving) {
                        (Some(_), _) => "refused",
                        (None, Some(_)) => "serving",
                        (None, None) => "waiting",
                    },
                    guest: serving.map(|route| route.guest.tag.to_string()),
                    digest: serving.map(|route| route.guest.digest.clone()),
                    interface: serving.map(|route| route.guest.interface.clone()),
                    keeps_state: serving.is_some_and(|route| route.guest.imports_state),
                    error: seen.error.clone(),
                    probation: probation
                        .map(|p| ProbationInfo { messages: p.messages(), failures: p.failures() }),
                    lane: if slow { "slow" } else { "fast" },
                    class: serving.map_or(Class::Normal, |route| route.rules.class),
                    messages: stats.map_or(0, |stats| stats.messages.load(Ordering::Relaxed)),
                    cpu_seconds: stats.map_or(0.0, |stats| stats.cpu().as_secs_f64()),
                    failures: stats.map(|stats| stats.failures().collect()).unwrap_or_default(),
                }
            })
            .collect()
    }

    /// A route's versions, newest first; None where there never was one.
    pub fn history(&self, place: &Place) -> Option<Vec<Version>> {
        let known = self.seen.lock().get(place).map(|seen| seen.record.clone());
        let record = known.unwrap_or_else(|| self.record(place));
        (!record.versions.is_empty()).then_some(record.versions)
    }

    /// What a route's guests logged, oldest first, and how many texts were dropped.
    pub fn log(&self, place: &Place) -> Option<(Vec<LogLine>, u64)> {
        let seen = self.seen.lock();
        let serving = seen.get(place)?.serving.as_ref()?;
        Some(serving.state.log.lines())
    }
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

//! The guests of this gateway: the files in the folder, the versions that serve, and the changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::compile::{CompileLimits, CompilerSettings, Compilers};
use crate::disk_use::DiskUse;
use crate::error::RolloutError;
use crate::folder::CandidateStamps;
use crate::history::{RouteHistory, RouteRecord};
use crate::limits::{GUEST_PUTS_WAITING_MAX, LARGE_PUTS_WAITING_MAX};
use crate::lone_route_files::LoneRouteFiles;
use crate::penalties::Penalties;
use crate::queue::EvaluationQueue;
use crate::tenant_limits::TenantLimits;
use tidegate_core::disk_reserve::DiskReserve;
use tidegate_core::route_key::RouteKey;
use tidegate_core::start_progress;
use tidegate_core::tenant::budgets::BudgetPair;
use tidegate_core::tenant::table::Tenants;
use tidegate_decode::route::stats::RouteActivity;
use tidegate_decode::route::table::{IdleFile, Route, RoutingTable};
use tidegate_decode::sandbox::class::grant;
use tidegate_decode::sandbox::guest::Guest;
use tidegate_decode::{DecodeHost, GuestClass};

/// The type under which candidates are counted that lie nowhere: no file has this name.
const ELSEWHERE: &str = "_other";

/// Runs a route's cases.
pub trait CaseRunner: Send + Sync {
    /// # Errors
    /// A case failed, or is none; in words.
    fn run(&self, guest: Arc<DecodeHost>, cases: &str) -> Result<(), String>;
}

/// The means of a store beside its folder: compilers, cases, and a folder for its decisions.
pub struct Persistence {
    pub compiler: CompilerSettings,
    /// The compiler's limits for the class large; None if it is granted to nobody.
    pub large_compile_limits: Option<CompileLimits>,
    /// Holds the history of routes; made where it is not there. None: nothing is kept.
    pub data: Option<PathBuf>,
    /// True for a verb beside a gateway, which reads and changes nothing.
    pub read_only: bool,
    pub cases: Option<Arc<dyn CaseRunner>>,
    /// While the disk is low, no new version is kept or put in place.
    pub disk_reserve: Arc<DiskReserve>,
    pub tenant_limits: TenantLimits,
    /// The tenants whose disk budgets are charged; `None`: none are.
    pub tenants: Option<Arc<Tenants>>,
}

impl Persistence {
    /// Compiles, and keeps nothing.
    pub fn none(compiler: CompilerSettings, large_compile_limits: Option<CompileLimits>) -> Self {
        Self {
            compiler,
            large_compile_limits,
            data: None,
            read_only: true,
            cases: None,
            disk_reserve: Arc::default(),
            tenant_limits: TenantLimits::NONE,
            tenants: None,
        }
    }
}

/// A file of the folder as it was at the last scan.
#[derive(Debug)]
pub(super) struct FileEntry {
    pub(super) path: PathBuf,
    pub(super) stamps: CandidateStamps,
    pub(super) serving: Option<Route>,
    pub(super) error: Option<String>,
    /// True if the file is a version that was rolled back: `error` says so.
    pub(super) set_aside: bool,
    pub(super) record: RouteRecord,
    /// It waits to be evaluated, or is being evaluated.
    pub(super) queued: bool,
    /// Not before then: the fault was ours.
    pub(super) again: Option<Instant>,
}

impl FileEntry {
    pub(super) fn new(path: PathBuf, record: RouteRecord) -> Self {
        Self {
            path,
            stamps: CandidateStamps::default(),
            serving: None,
            error: None,
            set_aside: false,
            record,
            queued: false,
            again: None,
        }
    }

    /// Records that it was evaluated with these stamps.
    pub(super) fn settle(&mut self, stamps: CandidateStamps) {
        self.stamps = stamps;
        self.queued = false;
        self.again = None;
        self.set_aside = false;
    }
}

/// A change of the version that serves a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutEvent {
    Serves { tenant: String, message_type: String, guest: String, replaced: Option<String> },
    Refused { tenant: String, message_type: String, why: String },
    RolledBack { tenant: String, message_type: String, guest: String, why: String },
    Gone { tenant: String, message_type: String },
}

/// The guests of this gateway.
pub struct GuestStore {
    pub(super) folder: PathBuf,
    /// Serves the routing tables that this store publishes.
    pub(super) host: Arc<DecodeHost>,
    pub(super) compilers: Compilers,
    pub(super) disk_reserve: Arc<DiskReserve>,
    /// A folder of the gateway alone, in which files are staged.
    pub(super) staging: Option<PathBuf>,
    pub(super) history: Option<RouteHistory>,
    pub(super) disk_use: DiskUse,
    pub(super) lone_route_files: LoneRouteFiles,
    pub(super) cases: Option<Arc<dyn CaseRunner>>,
    /// Loaded guests by their names: routes with the same component share it.
    pub(super) loaded: Mutex<HashMap<String, Weak<Guest>>>,
    pub(super) entries: Mutex<BTreeMap<RouteKey, FileEntry>>,
    pub(super) tenant_limits: Mutex<TenantLimits>,
    pub(super) penalties: Penalties,
    /// New files, counted by their outcomes.
    pub(super) swaps: Mutex<BTreeMap<(RouteKey, &'static str), u64>>,
    /// Events that nobody has taken yet.
    events: Mutex<Vec<RolloutEvent>>,
    pub(super) queue: EvaluationQueue,
    /// The queue of routes that are granted the class large: long evaluations there delay no others.
    pub(super) large_queue: EvaluationQueue,
}

impl GuestStore {
    /// Restores the versions that served, and evaluates the files in the folder; refused ones are among
    /// the events.
    ///
    /// # Errors
    /// The folder cannot be read, or there is no folder for compiled components.
    pub fn open(
        folder: &Path,
        persistence: Persistence,
        host: Arc<DecodeHost>,
    ) -> Result<(Self, Vec<RolloutEvent>), RolloutError> {
        let Persistence {
            compiler,
            large_compile_limits,
            data,
            read_only,
            cases,
            disk_reserve,
            tenant_limits,
            tenants,
        } = persistence;
        let routes = data.as_ref().map(|data| data.join("routes"));
        let folders = std::iter::once(folder.to_owned()).chain(routes).collect();
        let history = data.as_ref().map(|data| RouteHistory::new(data, read_only));
        let gateways_own = compiler.cache.clone().into_iter();
        let gateways_own =
            gateways_own.chain(history.as_ref().map(|history| history.built_in_folder().to_owned()));
        let store = Self {
            folder: folder.to_owned(),
            compilers: Compilers::new(&host, &compiler, large_compile_limits)?,
            host,
            disk_use: DiskUse::new(tenants, folders, gateways_own.collect()),
            lone_route_files: LoneRouteFiles::default(),
            history,
            staging: data.filter(|_| !read_only),
            cases,
            disk_reserve,
            loaded: Mutex::default(),
            entries: Mutex::default(),
            tenant_limits: Mutex::new(tenant_limits),
            penalties: Penalties::default(),
            swaps: Mutex::default(),
            events: Mutex::default(),
            queue: EvaluationQueue::new(GUEST_PUTS_WAITING_MAX),
            large_queue: EvaluationQueue::new(LARGE_PUTS_WAITING_MAX),
        };
        let load = || -> Result<(), RolloutError> {
            let files = store.route_files()?.0;
            let of = files.len();
            for (done, (route_key, path)) in files.into_iter().enumerate() {
                start_progress::report(done, of);
                store.load_at_start(&route_key, &path);
            }
            Ok(())
        };
        match &store.history {
            Some(history) => history.sync_once(load)?,
            None => load()?,
        }
        store.forget_built_ins();
        store.disk_use.measure_all();
        store.swap_table(&store.entries.lock());
        let events = store.take_events();
        Ok((store, events))
    }

    /// Removes copies of built-in decoders that no route needs any more.
    fn forget_built_ins(&self) {
        let Some(history) = &self.history else { return };
        let entries = self.entries.lock();
        let versions = entries.values().flat_map(|entry| &entry.record.versions);
        let in_use: HashSet<&str> = versions.map(|version| version.digest.as_str()).collect();
        history.forget_built_ins(|digest| in_use.contains(digest));
    }

    /// The host that decodes by this store's routing table.
    pub fn host(&self) -> &Arc<DecodeHost> {
        &self.host
    }

    /// True if any guest that serves keeps values between messages.
    pub fn any_keeps_state(&self) -> bool {
        let entries = self.entries.lock();
        entries
            .values()
            .any(|entry| entry.serving.as_ref().is_some_and(|route| route.version.guest.imports_state))
    }

    /// The queue of the candidates of a place.
    pub(super) fn queue_of(&self, route_key: &RouteKey) -> &EvaluationQueue {
        match self.host.settings().granted(route_key) {
            GuestClass::Normal => &self.queue,
            GuestClass::Large => &self.large_queue,
        }
    }

    /// The largest component that a place may have.
    pub fn component_bytes_max(&self, route_key: &RouteKey) -> u64 {
        self.host.settings().ceilings(self.host.settings().granted(route_key)).component_bytes_max
    }

    pub(super) fn too_large(&self, route_key: &RouteKey, bytes: u64, most: u64) -> RolloutError {
        match self.host.settings().granted(route_key) {
            GuestClass::Normal => RolloutError::NeedsLarge { bytes, most, grant: grant(route_key) },
            GuestClass::Large => RolloutError::TooLarge { bytes, most },
        }
    }

    /// The file of a route with this extension.
    pub(super) fn path_of(&self, (tenant, stem): &RouteKey, extension: &str) -> PathBuf {
        self.folder.join(tenant).join(format!("{stem}.{extension}"))
    }

    /// The activity of a new route, charged to the tenant of its folder.
    pub(super) fn new_activity(&self, (tenant, _): &RouteKey) -> Arc<RouteActivity> {
        let budgets = self.disk_use.budgets(tenant).unwrap_or_else(BudgetPair::unlimited);
        RouteActivity::new(&budgets.memory)
    }

    pub(super) fn take_events(&self) -> Vec<RolloutEvent> {
        std::mem::take(&mut self.events.lock())
    }

    pub(super) fn record_event(&self, event: RolloutEvent) {
        self.events.lock().push(event);
    }

    pub(super) fn swap_table(&self, entries: &BTreeMap<RouteKey, FileEntry>) {
        let routes =
            entries.iter().filter_map(|(route_key, entry)| Some((route_key.clone(), entry.serving.clone()?)));
        let idle =
            entries.iter().filter(|(_, entry)| entry.serving.is_none()).filter_map(|(route_key, entry)| {
                let file = entry.path.file_name()?.to_string_lossy().into_owned();
                Some((route_key.clone(), IdleFile { file, why: entry.error.clone()? }))
            });
        self.host.publish(routes.collect::<RoutingTable>().with_idle(idle));
    }

    pub(super) fn count(&self, route_key: &RouteKey, outcome: &'static str) {
        *self.swaps.lock().entry((route_key.clone(), outcome)).or_default() += 1;
    }

    /// Counts a candidate for a place where nothing lies: such places have one name together.
    pub(super) fn count_elsewhere(&self, (tenant, _): &RouteKey, outcome: &'static str) {
        self.count(&(tenant.clone(), ELSEWHERE.to_owned()), outcome);
    }

    /// Adds the counts of a place where nothing lies any more to those of all such places.
    pub(super) fn merge_counts(&self, route_key: &RouteKey) {
        let mut swaps = self.swaps.lock();
        let own: Vec<_> = swaps.keys().filter(|(known, _)| known == route_key).cloned().collect();
        for key in own {
            let count = swaps.remove(&key).unwrap_or_default();
            *swaps.entry(((route_key.0.clone(), ELSEWHERE.to_owned()), key.1)).or_default() += count;
        }
    }

    pub(super) fn record(&self, route_key: &RouteKey) -> RouteRecord {
        self.history.as_ref().map(|history| history.read(route_key)).unwrap_or_default()
    }

    /// Writes the decisions on a route. A full disk changes nothing of the versions that serve now.
    pub(super) fn write(&self, route_key: &RouteKey, record: &RouteRecord) {
        if let Some(history) = &self.history
            && let Err(error) = history.write(route_key, record)
        {
            tracing::error!(%error, tenant = route_key.0, message_type = route_key.1, "a guest's history cannot be written");
        }
    }
}

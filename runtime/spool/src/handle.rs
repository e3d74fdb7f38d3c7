//! The spool as its users hold it, and its threads.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tracing::error;

use crate::append::RejectedBatches;
use crate::commit_queue::{DeferredBatch, charge_lines};
use crate::deferred::DeferredBatches;
use crate::disk::{Disk, SegmentDir};
use crate::error::SpoolError;
use crate::log::SegmentLog;
use crate::quota::{QuotaLimits, Quotas};
use crate::quota_state::QuotaState;
use crate::reader::Lines;
use crate::recovery_report::RecoveryReport;
use crate::settings::{MemoryLimits, SpoolSettings};
use crate::shared::Shared;
use crate::{committer, compaction, limits, recovery};
use tidegate_core::books::{Account, Books};
use tidegate_core::decoder_state::StateSnapshot;
use tidegate_core::durable::{DurableLines, Handoff};
use tidegate_core::ids::TenantId;
use tidegate_core::message::{CheckedBatch, Received};
use tidegate_core::parked::ParkingStore;
use tidegate_core::tenant::table::Tenants;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

/// The spool. Clones are the same spool.
#[derive(Clone)]
pub struct Spool {
    pub(crate) shared: Arc<Shared>,
    threads: Arc<SpoolThreads>,
}

/// A spool that was read, and does not write yet.
pub struct OpenedSpool {
    shared: Arc<Shared>,
    log: SegmentLog,
    pub recovered: RecoveryReport,
}

impl OpenedSpool {
    /// The decoders' state.
    pub fn state(&self) -> StateSnapshot {
        self.shared.index.lock().state.image().clone()
    }

    /// The lines that lie there, to be fetched from now on.
    pub fn lines(&self) -> Arc<dyn DurableLines> {
        Arc::new(Lines(self.shared.clone()))
    }

    /// Starts to take batches. What lies there from earlier runs waits to be fetched.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(self, delivery: Arc<dyn Handoff>) -> std::io::Result<Spool> {
        let Self { shared, log, .. } = self;
        let waiting = {
            let mut index = shared.index.lock();
            // The outputs of tenants are known by now, and all that waits is announced.
            index.move_to_outputs();
            index.take_unannounced();
            index.waiting()
        };
        waiting.iter().for_each(|database| delivery.waits(database));
        shared.current.store(log.current().unwrap_or(0), Ordering::Relaxed);
        let committing = shared.clone();
        let committer =
            worker::start("spool", Priority::Normal, move || committer::run(&committing, log, &*delivery))?;
        let tidying = shared.clone();
        let tidy = worker::start("spool-tidy", Priority::Normal, move || compaction::compact(&tidying))?;
        let threads = SpoolThreads { shared: shared.clone(), handles: Mutex::new(vec![committer, tidy]) };
        Ok(Spool { shared, threads: Arc::new(threads) })
    }
}

impl Spool {
    /// Reads the spool in `dir`, made if it is not there, and counts what it holds into `books`. `tenants`
    /// have shares and outputs of their own; without them all have the common ones.
    ///
    /// # Errors
    /// It cannot be read, or cannot be written to for another reason than a full disk.
    pub fn open(
        dir: &Path,
        settings: SpoolSettings,
        tenants: Option<Arc<Tenants>>,
        books: &Arc<Books>,
    ) -> Result<OpenedSpool, SpoolError> {
        let folder = SegmentDir::create(dir);
        let folder = folder.map_err(|error| SpoolError { doing: "create", path: dir.to_owned(), error })?;
        Self::open_on(Arc::new(folder), settings, tenants, books)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        settings: SpoolSettings,
        tenants: Option<Arc<Tenants>>,
        books: &Arc<Books>,
    ) -> Result<OpenedSpool, SpoolError> {
        let began = Instant::now();
        // Nothing is handed on while it is read.
        let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, recovered) = recovery::recover(&*disk, &no_memory, settings.device_seed)?;
        recovered.log(&*disk, began.elapsed());
        let index = Mutex::new(index);
        let mut log = SegmentLog::new(
            disk.clone(),
            settings.segment_bytes(),
            settings.sync,
            settings.memory_limits(),
            recovered.next_segment,
        )
        .with_seed(settings.device_seed);
        if !recovered.twins.is_empty()
            && let Err(error) = log.separate(&index, &recovered.twins)
        {
            error!(%error, "frames that share a number with others wait for the next start");
        }
        let mut index = index.into_inner();
        index.table = tenants.clone();
        recovery::restore_books(&index, books);
        let mut shares = Quotas::new(QuotaLimits {
            bytes_max: settings.bytes_max,
            tenant_bytes_max: settings.tenant_bytes_max,
        });
        let mut parked = Quotas::new(parked_limits(&settings));
        for (tenant, bytes) in index.parked_bytes().filter(|(_, bytes)| *bytes > 0) {
            parked.take(tenant, bytes);
        }
        for (tenant, bytes) in index.tenant_bytes().filter(|(_, bytes)| *bytes > 0) {
            let parked = parked.used(tenant);
            shares.take(tenant, bytes.saturating_sub(parked));
            shares.take_charged(tenant, parked);
        }
        let lines_pending = index.lines();
        let shared = Shared {
            disk,
            books: books.clone(),
            index: Mutex::new(index),
            delivered: Condvar::new(),
            quotas: Mutex::new(QuotaState {
                shares,
                parked,
                tenants: tenants.clone(),
                held: DeferredBatches::default(),
                logged: HashMap::new(),
            }),
            queue: Mutex::default(),
            more: Condvar::new(),
            copied: Condvar::new(),
            parked: Notify::new(),
            unread: Mutex::default(),
            fault: Mutex::new(None),
            lines_pending: AtomicU64::new(lines_pending),
            messages: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            current: AtomicU64::new(0),
            settings,
        };
        if let Some(tenants) = &tenants {
            shared.quotas.lock().charge_budgets(tenants);
        }
        match log.ensure_current(&shared.index).and_then(|()| log.remove_empty(&shared.index)) {
            Ok(()) => {}
            // What lies here can still be written to the databases, and that makes room.
            Err(error) if matches!(error.error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
                error!(%error, "the spool cannot be written to: nothing is acknowledged until it can");
                *shared.fault.lock() = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(OpenedSpool { shared: Arc::new(shared), log, recovered })
    }

    /// Takes batches; their messages are settled once they are durable. Does no I/O; from any thread.
    /// `more_comes`: another batch is just being decoded, and will be here in a moment.
    pub fn append(&self, mut batches: Vec<CheckedBatch>, more_comes: bool) {
        batches.iter_mut().for_each(charge_lines);
        let kept_s = self.shared.settings.age_clock.now_s();
        let items: Vec<DeferredBatch> =
            batches.into_iter().map(|batch| DeferredBatch::new(batch, kept_s)).collect();
        let (mut taken, mut shed) = (Vec::with_capacity(items.len()), RejectedBatches::default());
        let mut quotas = self.shared.quotas.lock();
        for item in items {
            self.shared.admit(&mut quotas, item, &mut taken, &mut shed);
        }
        drop(quotas);
        if self.shared.queue.lock().push(taken, more_comes) {
            self.shared.more.notify_one();
        }
        shed.finish();
    }

    /// Moves the waiting frames of tenants whose outputs have changed to the new outputs; the writer is
    /// notified within a second.
    pub fn move_to_outputs(&self, changed: &[TenantId]) {
        if !changed.is_empty() {
            self.shared.index.lock().move_to_outputs();
        }
    }

    /// The reason why nothing can be acknowledged; `None`: it can.
    pub fn fault(&self) -> Option<String> {
        self.shared.fault.lock().clone()
    }

    /// Bytes of the files on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.index.lock().disk_bytes()
    }

    /// Lines that are durable here and not yet in their database.
    pub fn lines_pending(&self) -> u64 {
        self.shared.lines_pending.load(Ordering::Relaxed)
    }

    /// Syncs and messages made durable since the start.
    pub fn syncs(&self) -> (u64, u64) {
        (self.shared.syncs.load(Ordering::Relaxed), self.shared.messages.load(Ordering::Relaxed))
    }

    /// Waits until all that was taken is durable, or `deadline`; blocks the thread. True when all
    /// is, but for what waits for room.
    pub fn flush(&self, deadline: Instant) -> bool {
        loop {
            {
                let queue = self.shared.queue.lock();
                if queue.items.is_empty() && !queue.busy {
                    return true;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the threads: marks are written, and nothing is taken any more. What waits for room
    /// stays unacknowledged.
    pub fn close(&self) {
        self.threads.close();
    }

    /// Reads the decoders' state, as it is durable. Nothing is committed meanwhile, so `read` takes a part of
    /// bounded size.
    pub fn read_durable_state<T>(&self, read: impl FnOnce(&StateSnapshot) -> T) -> T {
        read(self.shared.index.lock().state.image())
    }
}

/// The share that may be parked: a part of what may be spooled, so that lines go on.
fn parked_limits(settings: &SpoolSettings) -> QuotaLimits {
    QuotaLimits {
        bytes_max: settings.bytes_max / limits::PARKED_SPOOL_SHARE,
        tenant_bytes_max: settings.tenant_bytes_max / limits::PARKED_TENANT_SHARE,
    }
}

/// Messages stay here that the registry cannot be asked about in time.
impl ParkingStore for Spool {
    fn park(
        &self,
        tenant: &TenantId,
        account: &Arc<Account>,
        message: Received,
    ) -> Result<(), Box<Received>> {
        Spool::park(self, tenant, account, message)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spool")
    }
}

pub(crate) struct SpoolThreads {
    shared: Arc<Shared>,
    handles: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl SpoolThreads {
    fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.more.notify_all();
        self.shared.copied.notify_all();
        for handle in std::mem::take(&mut *self.handles.lock()) {
            // A panic there ends the process.
            let _ = handle.join();
        }
    }
}

impl Drop for SpoolThreads {
    fn drop(&mut self) {
        self.close();
    }
}

//! The viewers of a tap, the reading side of each, and the events that they were shown of late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use crate::limits::{TAP_QUEUE_EVENTS, TAP_VIEWERS_A_TENANT_MAX, TAP_VIEWERS_MAX};
use crate::pipeline::tap::event::TapEvent;
use crate::pipeline::tap::filter::TapFilter;
use crate::pipeline::tap::memory::TapMemory;
use crate::pipeline::tap::viewer::{TapCounts, Viewer};

/// There is no place for one more viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapFull {
    #[error("{TAP_VIEWERS_MAX} viewers watch messages already, and more are not taken")]
    Gateway,
    #[error(
        "{TAP_VIEWERS_A_TENANT_MAX} viewers of this tenant watch messages already, and more are not taken"
    )]
    Tenant,
}

/// The viewers.
#[derive(Debug, Default)]
pub struct Viewers {
    all: RwLock<Vec<Arc<Viewer>>>,
    count: AtomicUsize,
    memory: Mutex<TapMemory>,
}

impl Viewers {
    /// Opens a place for a viewer, until the reader is dropped.
    pub(super) fn open(
        self: &Arc<Self>,
        filter: TapFilter,
        owner: Option<&str>,
        now_s: f64,
    ) -> Result<TapReader, TapFull> {
        let mut all = self.all.write();
        let own = || all.iter().filter(|viewer| viewer.owner.as_deref() == owner).count();
        if owner.is_some() && own() >= TAP_VIEWERS_A_TENANT_MAX {
            return Err(TapFull::Tenant);
        }
        let number = (0..TAP_VIEWERS_MAX as u32).find(|number| all.iter().all(|one| one.number != *number));
        let number = number.ok_or(TapFull::Gateway)?;
        let (sender, events) = mpsc::channel(TAP_QUEUE_EVENTS);
        let viewer = Arc::new(Viewer::new(number, owner.map(str::to_owned), filter, sender, now_s));
        all.push(viewer.clone());
        self.count.store(all.len(), Ordering::Relaxed);
        Ok(TapReader { viewers: self.clone(), viewer, events })
    }

    fn close(&self, viewer: &Arc<Viewer>) {
        let mut all = self.all.write();
        all.retain(|one| !Arc::ptr_eq(one, viewer));
        self.count.store(all.len(), Ordering::Relaxed);
        if all.is_empty() {
            *self.memory.lock() = TapMemory::default();
        }
    }

    #[inline]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// All viewers of this moment. No lock is held behind it: what is shown to one may end another.
    pub(super) fn all(&self) -> Vec<Arc<Viewer>> {
        self.all.read().clone()
    }

    pub(super) fn remember(&self, event: Arc<TapEvent>) {
        self.memory.lock().push(event);
    }

    pub(super) fn event(&self, id: u64) -> Option<Arc<TapEvent>> {
        self.memory.lock().get(id)
    }
}

/// The reading side of a viewer. Its place is free again when this is dropped.
#[derive(Debug)]
pub struct TapReader {
    viewers: Arc<Viewers>,
    viewer: Arc<Viewer>,
    events: mpsc::Receiver<Arc<TapEvent>>,
}

impl TapReader {
    /// The next event; waits for it.
    pub async fn next(&mut self) -> Option<Arc<TapEvent>> {
        self.events.recv().await
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Arc<TapEvent>> {
        self.events.try_recv().ok()
    }

    pub fn counts(&self) -> TapCounts {
        self.viewer.counts()
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        self.viewers.close(&self.viewer);
    }
}

//! The ceiling of all bytes that the writer has in hand, over all databases: lines, the bodies that are
//! made of them, and lines that wait apart. What has no room stays in the spool, and is fetched later.
//!
//! Three fourths are for whoever needs them, at most half of it one database. The last fourth is for
//! databases that hold little: those that are slow or away take no room that the others need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::limits;

#[derive(Debug)]
pub struct LinesBudget {
    bytes_max: usize,
    used: AtomicUsize,
    /// Bytes of lines that wait apart, which have a fourth of their own.
    apart: AtomicUsize,
    /// Charges that alone are more than a fourth of the whole.
    giants: AtomicUsize,
    /// There is room again.
    freed: Notify,
}

/// The part of one database. One count of references for both, as each frame in hand has one.
#[derive(Clone, Debug)]
pub struct DatabaseShare(Arc<ShareState>);

#[derive(Debug)]
struct ShareState {
    budget: Arc<LinesBudget>,
    used: AtomicUsize,
}

/// Bytes in hand; given back when it is dropped.
#[derive(Debug)]
pub struct LinesCharge {
    share: DatabaseShare,
    bytes: usize,
    apart: bool,
}

impl LinesBudget {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            used: AtomicUsize::new(0),
            apart: AtomicUsize::new(0),
            giants: AtomicUsize::new(0),
            freed: Notify::new(),
        })
    }

    pub fn share(self: &Arc<Self>) -> DatabaseShare {
        DatabaseShare(Arc::new(ShareState { budget: self.clone(), used: AtomicUsize::new(0) }))
    }

    /// Bytes in hand, those of lines that wait apart among them.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed) + self.apart.load(Ordering::Relaxed)
    }

    /// True if databases in trouble must hold nothing.
    pub fn is_short(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.bytes_max / 2
    }

    /// Bytes in hand over those that may wait longer than the flush interval: three eighths, so that half is
    /// left for lines that come, and for the bodies of those that go.
    pub fn over_waiting_max(&self) -> usize {
        self.used.load(Ordering::Relaxed).saturating_sub(self.bytes_max / 8 * 3)
    }

    /// Waits until something is given back while there was little room.
    pub async fn until_freed(&self) {
        self.freed.notified().await;
    }
}

impl DatabaseShare {
    pub fn budget(&self) -> &LinesBudget {
        &self.0.budget
    }

    /// Bytes in hand.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that the database may take now.
    pub fn room(&self) -> usize {
        let (most, all) = (self.0.budget.bytes_max, self.0.budget.used.load(Ordering::Relaxed));
        let own = self.0.used.load(Ordering::Relaxed);
        let common = (most / 4 * 3).saturating_sub(all).min((most / 2).saturating_sub(own));
        let little = limits::LITTLE_BYTES.saturating_sub(own).min(most.saturating_sub(all));
        common.max(little)
    }

    /// `None`: there is no room for so many bytes now. A database that holds nothing may have any number,
    /// if no other has such a giant.
    pub fn try_charge(&self, bytes: usize) -> Option<LinesCharge> {
        let fits = bytes <= self.room() || self.0.used.load(Ordering::Relaxed) == 0 && self.fits_alone(bytes);
        fits.then(|| self.charge(bytes))
    }

    fn fits_alone(&self, bytes: usize) -> bool {
        let most = self.0.budget.bytes_max;
        match bytes > most / 4 {
            true => self.0.budget.giants.load(Ordering::Relaxed) == 0,
            false => self.0.budget.used.load(Ordering::Relaxed) + bytes <= most,
        }
    }

    /// Charges bytes that are in memory already.
    pub fn charge(&self, bytes: usize) -> LinesCharge {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.0.budget.used.fetch_add(bytes, Ordering::Relaxed);
        if bytes > self.0.budget.bytes_max / 4 {
            self.0.budget.giants.fetch_add(1, Ordering::Relaxed);
        }
        LinesCharge { share: self.clone(), bytes, apart: false }
    }

    /// Charges lines that wait apart.
    pub fn charge_apart(&self, bytes: usize) -> LinesCharge {
        self.0.budget.apart.fetch_add(bytes, Ordering::Relaxed);
        LinesCharge { share: self.clone(), bytes, apart: true }
    }

    /// True if no more lines may wait apart, of any database.
    pub fn is_apart_full(&self) -> bool {
        self.0.budget.apart.load(Ordering::Relaxed) >= self.0.budget.bytes_max / 4
    }
}

impl LinesCharge {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for LinesCharge {
    fn drop(&mut self) {
        let budget = &self.share.0.budget;
        if self.apart {
            budget.apart.fetch_sub(self.bytes, Ordering::Relaxed);
            return;
        }
        self.share.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
        let before = budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.bytes > budget.bytes_max / 4 {
            budget.giants.fetch_sub(1, Ordering::Relaxed);
        }
        if before > budget.bytes_max / 2 {
            budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_holders_leave_room_to_those_that_hold_little() {
        let budget = LinesBudget::new(64 << 20);
        let (a, b, little) = (budget.share(), budget.share(), budget.share());
        let mut charges = Vec::new();
        for share in [&a, &b] {
            charges.extend(std::iter::from_fn(|| share.try_charge(1 << 20)));
        }
        assert!(budget.used() <= 48 << 20, "{}", budget.used());
        assert!(a.0.used.load(Ordering::Relaxed) <= 32 << 20);
        assert!(little.try_charge(limits::LITTLE_BYTES).is_some());
        assert!(little.try_charge(1 << 20).is_some(), "what holds nothing gets its first frame");
        drop(charges);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_frame_larger_than_all_is_taken_alone() {
        let budget = LinesBudget::new(1 << 20);
        let giant = budget.share().try_charge(8 << 20).expect("nothing else could ever take it");
        assert!(budget.share().try_charge(8 << 20).is_none());
        assert!(budget.share().try_charge(1 << 10).is_none());
        drop(giant);
        assert!(budget.share().try_charge(1 << 10).is_some());
    }
}

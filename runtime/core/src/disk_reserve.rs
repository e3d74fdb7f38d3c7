//! A reserve of the disk for the spool: what else is kept stops growing before the spool has no room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The free bytes of a folder's file system, against a reserve.
#[derive(Debug)]
pub struct DiskReserve {
    folder: PathBuf,
    reserve_bytes: u64,
    /// At the last look.
    free_bytes: AtomicU64,
}

/// There is less room on the disk than the reserve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk of {} has {free_bytes} bytes free, less than spool.reserve_bytes = {reserve_bytes}: \
     the rest is for the spool. Quarantine does not grow, and no new decoder is kept",
    folder.display()
)]
pub struct DiskLow {
    folder: PathBuf,
    free_bytes: u64,
    reserve_bytes: u64,
}

impl DiskReserve {
    /// A reserve of `reserve_bytes` on the disk of `folder`; 0: none. Looks at the disk for the first time.
    pub fn new(folder: &Path, reserve_bytes: u64) -> Self {
        let reserve = Self { folder: folder.to_owned(), reserve_bytes, free_bytes: AtomicU64::new(u64::MAX) };
        reserve.refresh();
        reserve
    }

    /// Looks at the disk. A file system that does not say how much is free counts as one with room.
    pub fn refresh(&self) {
        let free_bytes = free_bytes(&self.folder).ok();
        self.free_bytes.store(free_bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Free bytes at the last look; `None` if the file system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        Some(self.free_bytes.load(Ordering::Relaxed)).filter(|&bytes| bytes < u64::MAX)
    }

    /// The reserve in bytes; 0: none.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Tells if there is room beyond the reserve, as of the last look.
    ///
    /// # Errors
    /// There is none.
    pub fn check(&self) -> Result<(), DiskLow> {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        if free_bytes >= self.reserve_bytes {
            return Ok(());
        }
        Err(DiskLow { folder: self.folder.clone(), free_bytes, reserve_bytes: self.reserve_bytes })
    }

    pub fn is_low(&self) -> bool {
        self.free_bytes.load(Ordering::Relaxed) < self.reserve_bytes
    }
}

impl Default for DiskReserve {
    /// No reserve.
    fn default() -> Self {
        Self { folder: PathBuf::new(), reserve_bytes: 0, free_bytes: AtomicU64::new(u64::MAX) }
    }
}

/// Bytes that a user without privileges can still use.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_its_reserve_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(DiskReserve::new(folder.path(), 1).check(), Ok(()));
        assert_eq!(DiskReserve::new(folder.path(), 0).check(), Ok(()));
        assert_eq!(DiskReserve::default().check(), Ok(()));
        assert!(DiskReserve::new(folder.path(), 0).free_bytes().is_some(), "it looks without a reserve too");
        assert_eq!(DiskReserve::default().free_bytes(), None);
        let low = DiskReserve::new(folder.path(), u64::MAX);
        assert!(low.is_low() && low.check().unwrap_err().to_string().contains("spool.reserve_bytes"));
        assert!(!DiskReserve::new(Path::new("/nowhere"), u64::MAX).is_low(), "nobody knows");
    }
}

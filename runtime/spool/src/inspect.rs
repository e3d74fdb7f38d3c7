//! The spool of a stopped gateway, read without touching it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, RetiredLines, SegmentDir};
use crate::error::SpoolError;
use crate::handle::Spool;
use crate::settings::MemoryLimits;
use crate::status::{SpoolStatus, backlogs, parked_of};
use crate::{disk, recovery};
use tidegate_core::age_clock::AgeClock;
use tidegate_core::books::Books;
use tidegate_core::decoder_state::StateSnapshot;
use tidegate_core::device_hash::SeedTag;

impl Spool {
    /// The decoders' state in the spool of a stopped gateway.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_state(dir: &Path) -> Result<StateSnapshot, SpoolError> {
        let disk = ReadOnlyDisk(SegmentDir::existing(dir));
        let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, _) = recovery::recover(&disk, &no_memory, SeedTag::default())?;
        Ok(index.state.image().clone())
    }

    /// Reads the spool of a stopped gateway. `clock`: that of its data folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open_read_only(dir: &Path, clock: &AgeClock) -> Result<(SpoolStatus, Books), SpoolError> {
        let disk = ReadOnlyDisk(SegmentDir::existing(dir));
        let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, _) = recovery::recover(&disk, &no_memory, SeedTag::default())?;
        let books = Books::default();
        recovery::restore_books(&index, &books);
        let status = SpoolStatus {
            bytes: index.disk_bytes(),
            live_bytes: index.live_bytes(),
            memory_bytes: 0,
            segments: index.segments() as u64,
            lines: index.lines(),
            waiting_messages: BTreeMap::new(),
            parked: parked_of(&index, clock.now()),
            fault: None,
            backlogs: backlogs(&index, clock.now()),
        };
        Ok((status, books))
    }
}

/// A folder that is looked at and not touched: its gateway may be running.
struct ReadOnlyDisk(SegmentDir);

impl Disk for ReadOnlyDisk {
    fn list(&self) -> std::io::Result<Vec<u64>> {
        self.0.list()
    }

    fn newest(&self) -> std::io::Result<Option<u64>> {
        self.0.newest()
    }

    fn create(&self, _: u64, _: u64) -> std::io::Result<Box<dyn disk::SegmentWriter>> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn record_newest(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn read_all(&self, segment: u64) -> std::io::Result<Vec<u8>> {
        self.0.read_all(segment)
    }

    fn read_at(&self, segment: u64, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(segment, offset, into)
    }

    fn truncate(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn sync(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn retire(&self, _: u64, _: &RetiredLines) -> std::io::Result<()> {
        Ok(())
    }

    fn retired_lines(&self) -> std::io::Result<RetiredLines> {
        self.0.retired_lines()
    }

    fn forget_retired(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn move_aside(&self, _: u64, _: &str) -> std::io::Result<()> {
        Ok(())
    }

    fn read_state(&self) -> std::io::Result<Option<Vec<u8>>> {
        self.0.read_state()
    }

    fn replace_state(&self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.0.path(segment)
    }
}

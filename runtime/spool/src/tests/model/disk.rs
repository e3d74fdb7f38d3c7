//! A disk that fills up, fails, and at a crash keeps of what was never synced whatever it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, RetiredLines, SegmentWriter};

/// A fault of the disk, once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A write ends after so many bytes, with ENOSPC.
    Write(usize),
    /// A sync fails; what it was to sync never becomes durable by that file.
    Sync,
    Create,
    /// A checkpoint of the state fails; which one is there afterwards shows at the next crash.
    State,
}

#[derive(Clone, Debug, Default)]
pub struct File {
    pub bytes: Vec<u8>,
    pub synced: usize,
    /// From here on nothing becomes durable any more.
    pub poisoned: Option<usize>,
    pub named: bool,
}

#[derive(Debug, Default)]
pub struct State {
    pub files: BTreeMap<u64, File>,
    /// Removed, but not durably.
    pub ghosts: BTreeMap<u64, File>,
    /// Retired segments, their lines, and what they are if that turns out not to be durable.
    pub retired: BTreeMap<u64, (RetiredLines, Option<File>)>,
    /// Put out of the way for a person to look at.
    pub aside: BTreeMap<u64, File>,
    /// Made and not noted yet.
    pub made: Option<u64>,
    pub newest: Option<u64>,
    pub checkpoint: Option<Vec<u8>>,
    /// Segments that were missing at one start and there at a later one. They are never removed.
    pub returned: BTreeSet<u64>,
    /// One that failed.
    pub half_checkpoint: Option<Vec<u8>>,
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, Default)]
pub struct Memory(pub Arc<Mutex<State>>);

impl State {
    fn fault(&mut self, is: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let place = self.faults.iter().position(is)?;
        Some(self.faults.remove(place))
    }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Memory {
    /// All that is in memory is written out, and becomes durable if that is still possible.
    pub fn flush(&self) {
        let mut state = self.0.lock();
        state.ghosts.clear();
        state.retired.values_mut().for_each(|(_, file)| *file = None);
        for file in state.files.values_mut() {
            file.synced = file.poisoned.unwrap_or(file.bytes.len());
            file.named = true;
        }
    }

    /// Power goes: of what was not synced any beginning is left, perhaps with a hole in it.
    pub fn crash(&self, mut random: impl FnMut(usize) -> usize) {
        let mut state = self.0.lock();
        for (segment, (lines, file)) in std::mem::take(&mut state.retired) {
            // Renaming is one step, durable or not.
            match file {
                Some(file) if random(2) == 0 => _ = state.files.insert(segment, file),
                _ => _ = state.retired.insert(segment, (lines, None)),
            }
        }
        for (segment, file) in std::mem::take(&mut state.ghosts) {
            if random(2) == 0 {
                state.files.insert(segment, file);
            }
        }
        if let Some(half) = state.half_checkpoint.take()
            && random(2) == 0
        {
            state.checkpoint = Some(half);
        }
        let mut files = BTreeMap::new();
        for (segment, mut file) in std::mem::take(&mut state.files) {
            if !file.named && random(2) == 0 {
                continue;
            }
            let unsynced = file.bytes.len() - file.synced;
            file.bytes.truncate(file.synced + random(unsynced + 1));
            if random(4) == 0 {
                let from = file.synced + random(file.bytes.len() - file.synced + 1);
                file.bytes[from..].fill(0);
            }
            file.synced = file.bytes.len();
            (file.poisoned, file.named) = (None, true);
            files.insert(segment, file);
        }
        state.files = files;
        state.faults.clear();
    }
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().files.keys().copied().collect())
    }

    fn newest(&self) -> io::Result<Option<u64>> {
        Ok(self.0.lock().newest)
    }

    fn create(&self, segment: u64, _: u64) -> io::Result<Box<dyn SegmentWriter>> {
        let mut state = self.0.lock();
        if state.fault(|fault| *fault == Fault::Create).is_some() {
            return Err(full());
        }
        assert!(state.files.insert(segment, File::default()).is_none(), "a number is used once");
        state.made = Some(segment);
        Ok(Box::new(End { disk: self.clone(), segment }))
    }

    fn record_newest(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.newest = state.made.take();
        Ok(())
    }

    fn read_all(&self, segment: u64) -> io::Result<Vec<u8>> {
        self.0.lock().files.get(&segment).map(|file| file.bytes.clone()).ok_or_else(missing)
    }

    fn read_at(&self, segment: u64, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.read_all(segment)?;
        let from = bytes.get(offset as usize..offset as usize + into.len()).ok_or_else(missing)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn truncate(&self, segment: u64, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.get_mut(&segment).ok_or_else(missing)?;
        file.bytes.truncate(len as usize);
        file.synced = file.synced.min(len as usize);
        file.poisoned = file.poisoned.map(|poisoned| poisoned.min(len as usize));
        Ok(())
    }

    fn sync(&self, segment: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.get_mut(&segment).ok_or_else(missing)?;
        file.synced = file.poisoned.unwrap_or(file.bytes.len());
        Ok(())
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        assert!(!state.returned.contains(&segment), "what was missing once is never removed");
        let file = state.files.remove(&segment).ok_or_else(missing)?;
        state.ghosts.insert(segment, file);
        Ok(())
    }

    fn retire(&self, segment: u64, lines: &RetiredLines) -> io::Result<()> {
        let mut state = self.0.lock();
        assert!(!state.returned.contains(&segment), "what was missing once is never removed");
        let file = state.files.remove(&segment).ok_or_else(missing)?;
        state.retired.insert(segment, (lines.clone(), Some(file)));
        Ok(())
    }

    fn retired_lines(&self) -> io::Result<RetiredLines> {
        let mut all = RetiredLines::default();
        self.0.lock().retired.values().for_each(|(lines, _)| all.add(lines));
        Ok(all)
    }

    fn forget_retired(&self) -> io::Result<()> {
        self.0.lock().retired.clear();
        Ok(())
    }

    fn move_aside(&self, segment: u64, _: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.remove(&segment).ok_or_else(missing)?;
        state.aside.insert(segment, file);
        Ok(())
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().checkpoint.clone())
    }

    fn replace_state(&self, checkpoint: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.fault(|fault| *fault == Fault::State).is_some() {
            state.half_checkpoint = Some(checkpoint.to_vec());
            return Err(full());
        }
        state.checkpoint = Some(checkpoint.to_vec());
        state.half_checkpoint = None;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.ghosts.clear();
        state.files.values_mut().for_each(|file| file.named = true);
        Ok(())
    }

    fn path(&self, segment: u64) -> PathBuf {
        format!("spool/{segment}").into()
    }
}

pub struct End {
    disk: Memory,
    segment: u64,
}

impl SegmentWriter for End {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.fault(|fault| matches!(fault, Fault::Write(_)));
        let file = state.files.get_mut(&self.segment).ok_or_else(missing)?;
        match fault {
            Some(Fault::Write(written)) => {
                file.bytes.extend_from_slice(&bytes[..written.min(bytes.len())]);
                Err(full())
            }
            _ => {
                file.bytes.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fails = state.fault(|fault| *fault == Fault::Sync).is_some();
        let file = state.files.get_mut(&self.segment).ok_or_else(missing)?;
        if fails {
            file.poisoned.get_or_insert(file.synced);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        file.synced = file.poisoned.unwrap_or(file.bytes.len());
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk.truncate(self.segment, len)
    }
}

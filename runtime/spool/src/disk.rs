//! The disk as the spool uses it: numbered segments in one folder. A trait, so that tests can put
//! a disk in its place that fills up, fails and loses what was never synced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits;

/// A folder of segments.
pub trait Disk: Send + Sync {
    /// The numbers of the segments that are there, ascending.
    ///
    /// # Errors
    /// The folder cannot be read; so below.
    fn list(&self) -> io::Result<Vec<u64>>;
    /// The newest segment that was ever noted, whether or not it is still there.
    fn newest(&self) -> io::Result<Option<u64>>;
    /// Makes a segment that must not be there yet, and keeps `reserve` bytes free for it.
    fn create(&self, segment: u64, reserve: u64) -> io::Result<Box<dyn SegmentWriter>>;
    /// Notes that the segment just made is the newest: from now on its loss is noticed.
    fn record_newest(&self) -> io::Result<()>;
    fn read_all(&self, segment: u64) -> io::Result<Vec<u8>>;
    /// Fills `into` from `offset` on.
    fn read_at(&self, segment: u64, offset: u64, into: &mut [u8]) -> io::Result<()>;
    fn truncate(&self, segment: u64, len: u64) -> io::Result<()>;
    fn remove(&self, segment: u64) -> io::Result<()>;
    /// Frees a segment that is done with, on a disk that has no room for a mark. The file that stays says so,
    /// and how many `lines` it held.
    fn retire(&self, segment: u64, lines: u64) -> io::Result<()>;
    /// Lines of all segments that were retired and are not forgotten.
    fn retired_lines(&self) -> io::Result<u64>;
    /// It is noted otherwise by now what was retired.
    fn forget_retired(&self) -> io::Result<()>;
    /// Puts a segment out of the way, for a person to look at; its name ends in `extension` from then on.
    fn move_aside(&self, segment: u64, extension: &str) -> io::Result<()>;
    /// The checkpoint of the state, if there is one.
    fn read_state(&self) -> io::Result<Option<Vec<u8>>>;
    /// Makes another checkpoint durable in its place; after a failure either may be there.
    fn replace_state(&self, checkpoint: &[u8]) -> io::Result<()>;
    /// Makes durable which segments there are.
    fn sync_dir(&self) -> io::Result<()>;
    /// The segment's path, to be shown.
    fn path(&self, segment: u64) -> PathBuf;
}

/// The end of a segment that is written to.
pub trait SegmentWriter: Send {
    /// # Errors
    /// Anything from nothing to all of it may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// # Errors
    /// Nothing written since the last good sync is durable, and never will be by this file.
    fn sync(&mut self) -> io::Result<()>;
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Holds the number of the newest segment, so that its loss is noticed.
const NEWEST: &str = "newest";

const STAGED: &str = "newest.staged";

/// No segment of ours comes to a higher number, which is kept in 32 bits; a file that has one is not
/// ours, and what is counted on from it would not be found again.
const SEGMENT_MAX: u64 = u32::MAX as u64 / 2;

/// Holds the checkpoint of the state.
const STATE: &str = "state";

/// Segments as files `{number:016}.seg`.
pub struct SegmentDir {
    dir: PathBuf,
    /// The segment that was last read from.
    open: Mutex<Option<(u64, Arc<File>)>>,
}

impl SegmentDir {
    /// # Errors
    /// The folder cannot be made.
    pub fn create(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self::existing(dir))
    }

    /// A folder that is only read.
    pub fn existing(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: Mutex::default() }
    }

    /// Makes ready to note that a segment is there, and keeps room for it.
    fn install(&self, segment: u64, file: &File, reserve: u64, staged: &Path) -> io::Result<()> {
        // First, while there is room for it.
        let mut newest = writable().create(true).truncate(true).open(staged)?;
        newest.write_all(segment.to_string().as_bytes())?;
        newest.sync_data()?;
        // The marks that let old segments go must find room on a full disk; where there is not room
        // for all, then at least for them. A file system that cannot reserve answers writes as they
        // come.
        let reserved =
            reserve_for(file, reserve).or_else(|_| reserve_for(file, limits::SPOOL_MARKS_RESERVE_BYTES));
        if let Err(error) = reserved
            && error.raw_os_error() == Some(libc::ENOSPC)
        {
            return Err(error);
        }
        Ok(())
    }

    /// The files that stand for retired segments, `{number:016}-{lines}.done`, and their lines.
    fn retired(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut all = Vec::new();
        for file in std::fs::read_dir(&self.dir)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".done"));
            if let Some(lines) = name.and_then(|name| name.split_once('-')?.1.parse().ok()) {
                all.push((path, lines));
            }
        }
        Ok(all)
    }
}

/// The options by which files of the spool are opened for writing: for the owner alone.
fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Keeps `bytes` of the disk free for what will be appended to `file`.
fn reserve_for(file: &File, bytes: u64) -> io::Result<()> {
    // SAFETY: fallocate(2) on a descriptor that is open.
    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, bytes as libc::off_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Disk for SegmentDir {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut all = Vec::new();
        for file in std::fs::read_dir(&self.dir)? {
            let name = file?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".seg"));
            let number =
                digits.filter(|digits| digits.len() == 16).and_then(|digits| digits.parse::<u64>().ok());
            all.extend(number.filter(|number| *number <= SEGMENT_MAX));
        }
        all.sort_unstable();
        Ok(all)
    }

    fn newest(&self) -> io::Result<Option<u64>> {
        match std::fs::read_to_string(self.dir.join(NEWEST)) {
            Ok(text) => Ok(text.trim().parse().ok().filter(|number| *number <= SEGMENT_MAX)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, segment: u64, reserve: u64) -> io::Result<Box<dyn SegmentWriter>> {
        let staged = self.dir.join(STAGED);
        let file = writable().append(true).create_new(true).open(self.path(segment))?;
        let made = self.install(segment, &file, reserve, &staged);
        // What stays reserved for a segment that is not written to would fill the disk for good.
        made.inspect_err(|_| {
            let _ = self.remove(segment);
            let _ = std::fs::remove_file(&staged);
        })?;
        Ok(Box::new(file))
    }

    fn record_newest(&self) -> io::Result<()> {
        std::fs::rename(self.dir.join(STAGED), self.dir.join(NEWEST))
    }

    fn read_all(&self, segment: u64) -> io::Result<Vec<u8>> {
        std::fs::read(self.path(segment))
    }

    fn read_at(&self, segment: u64, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let known = self.open.lock().clone().filter(|(number, _)| *number == segment);
        let file = match known {
            Some((_, file)) => file,
            None => {
                let file = Arc::new(File::open(self.path(segment))?);
                *self.open.lock() = Some((segment, file.clone()));
                file
            }
        };
        file.read_exact_at(into, offset)
    }

    fn truncate(&self, segment: u64, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(segment))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        self.open.lock().take_if(|(number, _)| *number == segment);
        std::fs::remove_file(self.path(segment))
    }

    fn retire(&self, segment: u64, lines: u64) -> io::Result<()> {
        self.open.lock().take_if(|(number, _)| *number == segment);
        let done = self.dir.join(format!("{segment:016}-{lines}.done"));
        std::fs::rename(self.path(segment), &done)?;
        OpenOptions::new().write(true).open(done)?.set_len(0)
    }

    fn retired_lines(&self) -> io::Result<u64> {
        Ok(self.retired()?.into_iter().map(|(_, lines)| lines).sum())
    }

    fn forget_retired(&self) -> io::Result<()> {
        self.retired()?.into_iter().try_for_each(|(path, _)| std::fs::remove_file(path))
    }

    fn move_aside(&self, segment: u64, extension: &str) -> io::Result<()> {
        self.open.lock().take_if(|(number, _)| *number == segment);
        let path = self.path(segment);
        // Another of that number may have been put out of the way before.
        let free = (0..).map(|copy| match copy {
            0 => path.with_extension(extension),
            copy => path.with_extension(format!("{copy}.{extension}")),
        });
        let aside = free.into_iter().find(|aside| !aside.exists()).expect("numbers do not end");
        std::fs::rename(&path, aside)
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.dir.join(STATE)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace_state(&self, checkpoint: &[u8]) -> io::Result<()> {
        let staged = self.dir.join("state.staged");
        let write = || -> io::Result<()> {
            let mut file = writable().create(true).truncate(true).open(&staged)?;
            file.write_all(checkpoint)?;
            file.sync_all()
        };
        // Half of one only takes room.
        write().inspect_err(|_| drop(std::fs::remove_file(&staged)))?;
        std::fs::rename(staged, self.dir.join(STATE))?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{segment:016}.seg"))
    }
}

impl SegmentWriter for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

//! The disk as the spool uses it: numbered segments in one folder. A trait, so that tests can put
//! a disk in its place that fills up, fails and loses what was never synced.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_core::atomic_file::{self, StagedFile};

use crate::closer::Closer;
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
    /// Makes durable what a segment holds, as an earlier run left it.
    fn sync(&self, segment: u64) -> io::Result<()>;
    fn remove(&self, segment: u64) -> io::Result<()>;
    /// Frees a segment that is done with, on a disk that has no room for a mark. The file that stays says so,
    /// and how many lines of each tenant it held.
    fn retire(&self, segment: u64, lines: &RetiredLines) -> io::Result<()>;
    /// Lines of all segments that were retired and are not forgotten.
    fn retired_lines(&self) -> io::Result<RetiredLines>;
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

/// Lines of segments that are done with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetiredLines {
    pub tenants: BTreeMap<String, u64>,
    /// Lines without their tenants: earlier versions noted a sum alone.
    pub unnamed: u64,
}

impl RetiredLines {
    /// Takes up to `lines` of a tenant; gives how many those are.
    pub fn take(&mut self, tenant: &str, lines: u64) -> u64 {
        let own = self.tenants.get_mut(tenant).map_or(0, |own| {
            let taken = lines.min(*own);
            *own -= taken;
            taken
        });
        let unnamed = self.unnamed.min(lines - own);
        self.unnamed -= unnamed;
        own + unnamed
    }

    pub fn add(&mut self, other: &Self) {
        for (tenant, lines) in &other.tenants {
            *self.tenants.entry(tenant.clone()).or_default() += lines;
        }
        self.unnamed += other.unnamed;
    }
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

/// Holds the checkpoint of the state.
const STATE: &str = "state";

/// Segments as files `{number:016}.seg`.
pub struct SegmentDir {
    dir: PathBuf,
    /// The number of the newest segment, with its room on the disk, until it is recorded.
    staged: Mutex<Option<StagedFile>>,
    /// The segment that was last read from.
    open: Mutex<Option<(u64, Arc<File>)>>,
    /// Closes removed segments; a folder that is only read has none.
    closer: Option<Closer>,
}

impl SegmentDir {
    /// # Errors
    /// The folder cannot be made, or the host gives no thread.
    pub fn create(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        atomic_file::remove_staged(dir);
        // As earlier versions named them.
        for leftover in ["newest.staged", "state.staged"] {
            let _ = std::fs::remove_file(dir.join(leftover));
        }
        Ok(Self { closer: Some(Closer::start()?), ..Self::existing(dir) })
    }

    /// A folder that is only read.
    pub fn existing(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), staged: Mutex::default(), open: Mutex::default(), closer: None }
    }

    /// Makes ready to note that a segment is there, and keeps room for it.
    fn install(&self, segment: u64, file: &File, reserve: u64) -> io::Result<()> {
        // First, while there is room for it.
        let mut newest = StagedFile::create(&self.dir)?;
        newest.write_all(segment.to_string().as_bytes())?;
        newest.sync()?;
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
        *self.staged.lock() = Some(newest);
        Ok(())
    }

    /// The files that stand for retired segments, `{number:016}-{lines}.done`, and the sum of their lines.
    /// Each holds the lines of each tenant, as JSON.
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
            all.extend(number.filter(|number| *number <= limits::SPOOL_SEGMENT_NUMBER_MAX));
        }
        all.sort_unstable();
        Ok(all)
    }

    fn newest(&self) -> io::Result<Option<u64>> {
        match std::fs::read_to_string(self.dir.join(NEWEST)) {
            Ok(text) => {
                Ok(text.trim().parse().ok().filter(|number| *number <= limits::SPOOL_SEGMENT_NUMBER_MAX))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, segment: u64, reserve: u64) -> io::Result<Box<dyn SegmentWriter>> {
        let file = writable().append(true).create_new(true).open(self.path(segment))?;
        let made = self.install(segment, &file, reserve);
        // What stays reserved for a segment that is not written to would fill the disk for good.
        made.inspect_err(|_| drop(self.remove(segment)))?;
        Ok(Box::new(file))
    }

    fn record_newest(&self) -> io::Result<()> {
        let staged = self.staged.lock().take().ok_or(io::ErrorKind::NotFound)?;
        // Synced already, and the caller syncs the folder.
        staged.install_unsynced(&self.dir.join(NEWEST))
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

    fn sync(&self, segment: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(segment))?.sync_all()
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        self.open.lock().take_if(|(number, _)| *number == segment);
        let path = self.path(segment);
        let file = self.closer.as_ref().and_then(|closer| Some((closer, File::open(&path).ok()?)));
        std::fs::remove_file(path)?;
        if let Some((closer, file)) = file {
            closer.close(file);
        }
        Ok(())
    }

    fn retire(&self, segment: u64, lines: &RetiredLines) -> io::Result<()> {
        self.open.lock().take_if(|(number, _)| *number == segment);
        let sum = lines.tenants.values().sum::<u64>() + lines.unnamed;
        let done = self.dir.join(format!("{segment:016}-{sum}.done"));
        std::fs::rename(self.path(segment), &done)?;
        let mut file = OpenOptions::new().write(true).open(done)?;
        file.set_len(0)?;
        // There is room now. Where there is none all the same, the sum is known.
        let tenants = serde_json::to_vec(&lines.tenants).expect("names and numbers");
        if file.write_all(&tenants).and_then(|()| file.sync_data()).is_err() {
            let _ = file.set_len(0);
        }
        Ok(())
    }

    fn retired_lines(&self) -> io::Result<RetiredLines> {
        let mut all = RetiredLines::default();
        for (path, sum) in self.retired()? {
            let tenants = serde_json::from_slice(&std::fs::read(path)?);
            all.add(&match tenants {
                Ok(tenants) => RetiredLines { tenants, unnamed: 0 },
                Err(_) => RetiredLines { unnamed: sum, ..RetiredLines::default() },
            });
        }
        Ok(all)
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
        atomic_file::replace(&self.dir, &self.dir.join(STATE), checkpoint)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_segment_is_gone_at_once_and_its_file_is_closed_soon() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SegmentDir::create(folder.path()).unwrap();
        for segment in 1..=20 {
            drop(disk.create(segment, 1 << 20).unwrap());
            disk.remove(segment).unwrap();
            assert!(disk.list().unwrap().is_empty());
        }
        let removed = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let names = open.filter_map(|open| std::fs::read_link(open.path()).ok());
            names
                .filter(|name| {
                    name.starts_with(folder.path()) && name.to_string_lossy().ends_with("(deleted)")
                })
                .count()
        };
        while removed() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(disk.remove(1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn retired_segments_are_known_by_tenant_and_those_of_earlier_versions_by_their_sum() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SegmentDir::create(folder.path()).unwrap();
        let lines = |acme, globex| RetiredLines {
            tenants: [("acme".to_owned(), acme), ("globex".to_owned(), globex)].into(),
            unnamed: 0,
        };
        for (segment, lines) in [(1, lines(3, 4)), (2, lines(10, 0))] {
            disk.create(segment, 0).unwrap();
            disk.retire(segment, &lines).unwrap();
        }
        std::fs::write(folder.path().join("0000000000000003-5.done"), "").unwrap();
        let mut retired = disk.retired_lines().unwrap();
        assert_eq!(retired, RetiredLines { unnamed: 5, ..lines(13, 4) });
        assert_eq!((retired.take("globex", 3), retired.take("globex", 3)), (3, 3));
        assert_eq!((retired.take("nobody", 9), retired.take("acme", 20)), (3, 13));
        assert!(disk.list().unwrap().is_empty());
        disk.forget_retired().unwrap();
        assert_eq!(disk.retired_lines().unwrap(), RetiredLines::default());
    }
}

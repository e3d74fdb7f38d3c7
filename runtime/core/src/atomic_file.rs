//! The way in which a file is replaced: whole or not at all, whatever fails and whoever plants links.
//!
//! The new content is staged in a folder that only the gateway writes to: under a name that nobody can
//! foresee, in a file that did not exist, for its owner alone. It is synced, renamed over the old file, and
//! the folder is synced. A staged file that is not installed is removed. What a crash left of one is removed
//! by `remove_staged`, which the owner of a staging folder calls at its start.
//!
//! A staging folder on another file system than the file costs one more copy, beside the file.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};

/// The staging folder of a data folder.
pub const STAGING: &str = "staging";

/// The end of the names of staged files.
const SUFFIX: &str = ".tidegate-staged";

/// Replaces the file at `path`, or makes it; staged in the folder `staging`, which is made if need be.
///
/// # Errors
/// The disk's. The old file stays, unless only the last sync of its folder failed.
pub fn replace(staging: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut staged = StagedFile::create(staging)?;
    staged.write_all(bytes)?;
    staged.install(path)
}

/// Removes the staged files that a crash left in `folder`. Those of a process that still runs are lost to it.
pub fn remove_staged(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A file that is not in its place yet; removed when it is dropped.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    folder: OwnedFd,
    name: OsString,
    path: PathBuf,
    is_installed: bool,
}

impl StagedFile {
    /// An empty file in the folder `staging`, which is made if need be.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(staging: &Path) -> io::Result<Self> {
        let folder = match open_folder(staging) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(staging)?;
                open_folder(staging)?
            }
            opened => opened?,
        };
        Self::create_in(folder, staging)
    }

    fn create_in(folder: OwnedFd, staging: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let unique = RandomState::new().hash_one(NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = OsString::from(format!(".{unique:016x}{SUFFIX}"));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR)?);
        let path = staging.join(&name);
        Ok(Self { file, folder, name, path, is_installed: false })
    }

    /// The place where it lies until it is installed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs what was written. `install` does so too; early, it finds out whether there is room.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Puts the file in its place, durably. The folder of `path` may be reached by links; in its place, a
    /// link is replaced and not followed.
    ///
    /// # Errors
    /// The disk's. The old file stays, unless only the last sync of its folder failed.
    pub fn install(self, path: &Path) -> io::Result<()> {
        let (folder, name) = split(path)?;
        self.install_in(open_folder(folder)?.as_fd(), name)
    }

    /// Does the same as `install`, into a folder that the caller opened: nobody can put another one in its place.
    ///
    /// # Errors
    /// The errors of `install`.
    pub fn install_in(self, folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.sync()?;
        self.rename(folder, name)?;
        sync_folder(folder)
    }

    /// Does the same as `install`, with nothing synced: the caller syncs the folder, or the file system, once for many.
    ///
    /// # Errors
    /// The disk's; the old file stays.
    pub fn install_unsynced(self, path: &Path) -> io::Result<()> {
        let (folder, name) = split(path)?;
        self.rename(open_folder(folder)?.as_fd(), name)
    }

    fn rename(mut self, folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        match rustix::fs::renameat(&self.folder, &self.name, folder, name) {
            Err(rustix::io::Errno::XDEV) => self.copy_to(folder, name),
            renamed => {
                renamed?;
                self.is_installed = true;
                Ok(())
            }
        }
    }

    /// Stages the content again, in the folder of its place, which is on another file system.
    fn copy_to(mut self, folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let mut copy = Self::create_in(folder.try_clone_to_owned()?, Path::new(""))?;
        self.file.rewind()?;
        io::copy(&mut (&self.file).take(u64::MAX), &mut copy.file)?;
        copy.sync()?;
        rustix::fs::renameat(&copy.folder, &copy.name, folder, name)?;
        copy.is_installed = true;
        Ok(())
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.is_installed {
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((folder.unwrap_or(Path::new(".")), name))
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn sync_folder(folder: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsync(folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_is_replaced_whole_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (staging, path) = (folder.path().join(STAGING), folder.path().join("file"));
        for text in ["first", "second, longer", "3"] {
            replace(&staging, &path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(files(&staging), 0, "nothing stays behind");
    }

    #[test]
    fn what_fails_or_is_given_up_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (staging, path) = (folder.path().join(STAGING), folder.path().join("file"));
        fs::create_dir(&path).unwrap();
        assert!(replace(&staging, &path, b"a folder is in the way").is_err());
        assert!(replace(&staging, &folder.path().join("nowhere/file"), b"x").is_err());
        assert!(replace(&staging, Path::new("/"), b"x").is_err());
        drop(StagedFile::create(&staging).unwrap());
        assert_eq!(files(&staging), 0);
        assert!(path.is_dir());
    }

    #[test]
    fn planted_links_are_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (staging, path) = (folder.path().join(STAGING), folder.path().join("file"));
        let victim = folder.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, &path).unwrap();
        replace(&staging, &path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn what_a_crash_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        std::mem::forget(StagedFile::create(folder.path()).unwrap());
        fs::write(folder.path().join("other"), "").unwrap();
        assert_eq!(files(folder.path()), 2);
        remove_staged(folder.path());
        assert!(folder.path().join("other").exists() && files(folder.path()) == 1);
    }

    #[test]
    fn a_staging_folder_on_another_file_system_will_do() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(folder.path()) == device(elsewhere.path()) {
            return;
        }
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        replace(elsewhere.path(), &path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!((files(elsewhere.path()), files(folder.path())), (0, 1));
    }
}

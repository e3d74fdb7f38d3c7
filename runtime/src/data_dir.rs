//! The data folder, and who may write in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The data folder cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("data_dir = {dir:?} cannot be created: {error}")]
    Make { dir: PathBuf, error: io::Error },
    #[error("data_dir = {dir:?} cannot be written to: {error}")]
    Open { dir: PathBuf, error: io::Error },
    #[error("data_dir = {dir:?} is in use by another gateway: each gateway needs its own folder")]
    Taken { dir: PathBuf },
}

/// Takes the data folder for this process alone; released when the file is dropped.
///
/// # Errors
/// Another process holds it, or it cannot be made or written to.
pub fn lock(data_dir: &Path) -> Result<File, LockError> {
    try_lock(data_dir)?.ok_or_else(|| LockError::Taken { dir: data_dir.to_owned() })
}

/// As `lock`; `None` where another process holds it.
///
/// # Errors
/// It cannot be made or written to.
pub fn try_lock(data_dir: &Path) -> Result<Option<File>, LockError> {
    let dir = data_dir.to_owned();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|error| LockError::Make { dir: dir.clone(), error })?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(data_dir.join("lock"))
        .map_err(|error| LockError::Open { dir, error })?;
    // SAFETY: flock(2) on a descriptor that is open.
    let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
    Ok(taken.then_some(file))
}

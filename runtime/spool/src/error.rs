//! The error of the spool, with advice for the operator.

use std::io;
use std::path::PathBuf;

/// The disk did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("spool: cannot {doing} {}: {error}; {}", path.display(), advice(error))]
pub struct SpoolError {
    pub doing: &'static str,
    pub path: PathBuf,
    #[source]
    pub error: io::Error,
}

pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => "make room on that disk, or lower spool.bytes_max",
        Some(libc::EROFS) => "the file system is read-only: mount it for writing, or move data_dir",
        Some(libc::EACCES | libc::EPERM) => "the gateway's user must own data_dir and all in it",
        Some(libc::EIO) => "the disk has failed: copy data_dir to a healthy one and start there",
        _ => "see data_dir",
    }
}

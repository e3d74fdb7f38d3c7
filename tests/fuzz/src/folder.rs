//! Folders for targets that read files.

use std::path::Path;

use tempfile::TempDir;

/// Memory that looks like a disk, where there is such.
const IN_MEMORY: &str = "/dev/shm";

/// A folder that goes when it is dropped.
pub fn temporary() -> TempDir {
    let base = Path::new(IN_MEMORY);
    let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("tidegate-fuzz-").tempdir_in(base).expect("a temporary folder")
}

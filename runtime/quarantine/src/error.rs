//! The error of quarantine.

use std::path::{Path, PathBuf};

/// A failure of a file or folder of quarantine.
#[derive(Debug, thiserror::Error)]
#[error("quarantine: cannot {doing} {}: {error}", path.display())]
pub struct QuarantineError {
    pub doing: &'static str,
    pub path: PathBuf,
    #[source]
    pub error: std::io::Error,
}

impl QuarantineError {
    pub(crate) fn failed_to(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self { doing, path, error }
    }
}

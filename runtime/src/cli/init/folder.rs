//! A new folder and its files.

use std::fs;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::BadUsage;

/// A folder that was empty. No file that exists is written to.
pub struct NewFolder(PathBuf);

impl NewFolder {
    /// Makes the folder, or takes an empty one.
    ///
    /// # Errors
    /// `BadUsage`: it has files already, or is no folder. Others: it cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            let refuse = |expected: String| BadUsage(format!("{}: {expected}", path.display()));
            let mut entries = fs::read_dir(path)
                .map_err(|error| refuse(format!("expected a folder that can be read ({error})")))?;
            if entries.next().is_some() {
                return Err(refuse("expected a new folder or an empty one; this one has files".into()).into());
            }
        }
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(fs::canonicalize(path)?))
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        self.write(name, content, 0o644)
    }

    /// A file of a secret: only its owner may read it, as the folder that it needs.
    pub fn secret(&self, name: &str, secret: &str) -> anyhow::Result<()> {
        self.write(name, format!("{secret}\n").as_bytes(), 0o600)
    }

    pub fn dir(&self, name: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
        let path = self.0.join(name);
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.dir(parent)?;
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

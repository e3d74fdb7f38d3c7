//! The mark of the receive clock on disk: nanoseconds since the Unix epoch as 19 digits and a
//! newline, written in place. So few bytes lie in one sector, which a disk writes whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::worker;
use crate::worker::Priority;

/// The mark cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("the mark of the receive clock cannot be opened: {path:?}: {error}")]
pub struct MarkFileError {
    path: PathBuf,
    error: io::Error,
}

/// Digits of the largest time there is.
const DIGITS: usize = 19;

#[derive(Debug)]
pub(super) struct MarkFile {
    file: Arc<File>,
    /// To the thread that syncs; it ends with this.
    sync: SyncSender<()>,
}

impl MarkFile {
    /// Opens or makes the file; gives its mark, if there is one.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<i64>), MarkFileError> {
        Self::try_open(path).map_err(|error| MarkFileError { path: path.to_owned(), error })
    }

    fn try_open(path: &Path) -> io::Result<(Self, Option<i64>)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(64).read_to_end(&mut bytes)?;
        let mark = parse(&bytes);
        if mark.is_none() && !bytes.is_empty() {
            tracing::warn!(?path, "the mark of the receive clock is damaged; the wall clock is believed");
        }
        let file = Arc::new(file);
        // One that waits is enough: a sync takes all that was written before it.
        let (sync, written) = sync_channel(1);
        let syncing = file.clone();
        worker::start("receive-clock", Priority::Normal, move || {
            while written.recv().is_ok() {
                // A failure occurs again at the stop, and is logged there.
                let _ = syncing.sync_data();
            }
        })?;
        Ok((Self { file, sync }, mark))
    }

    /// Writes the mark; it is on the disk a moment later.
    pub(super) fn write(&mut self, mark: i64) -> io::Result<()> {
        self.file.write_all_at(format!("{mark:0DIGITS$}\n").as_bytes(), 0)?;
        let _ = self.sync.try_send(());
        Ok(())
    }

    /// Syncs the last write to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn parse(bytes: &[u8]) -> Option<i64> {
    let (digits, newline) = bytes.get(..=DIGITS)?.split_at(DIGITS);
    let is_number = newline == b"\n" && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

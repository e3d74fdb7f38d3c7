//! The thread that closes files of removed segments.
//!
//! The system frees the blocks of a removed file when nobody has it open any more. For a segment of 16 MiB that
//! takes about 10 ms, and the thread that syncs would spend them, while every acknowledgement waits. So a
//! segment that is removed stays open, and this thread closes it: its name is gone at once, its room a moment later.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use tidegate_core::worker::{self, Priority};

/// Removed segments that wait to be closed. More are closed by who removes them: where the disk is slow to free
/// them, the room must not come too late.
const WAITING_MAX: usize = 4;

/// Closes files elsewhere. The thread ends with it.
#[derive(Debug)]
pub struct Closer(SyncSender<File>);

impl Closer {
    /// # Errors
    /// The host gives no thread.
    pub fn start() -> io::Result<Self> {
        let (closer, files) = sync_channel::<File>(WAITING_MAX);
        worker::start("spool-close", Priority::Normal, move || files.into_iter().for_each(drop))?;
        Ok(Self(closer))
    }

    /// Closes a file soon.
    pub fn close(&self, file: File) {
        // One that finds no place comes back in the error, and is closed here.
        drop(self.0.try_send(file));
    }
}

//! The durable spool: a message is acknowledged once its lines are synced here, and they stay until
//! the database has them.
//!
//! - Appends of all sessions share one sync; the next one starts when the last one ends.
//! - A frame is the unit of sync, of release and of loss. Frames of each tenant and database are
//!   released on their own: a dead database neither blocks nor pins the others.
//! - Recent lines are handed on from memory. Beyond `memory_bytes_max`, or where a database is
//!   behind, they are read back when their turn comes.
//! - Shares: a tenant that has filled its own waits (`block`) or loses its oldest lines, counted
//!   (`drop_oldest`).
//! - What decoders keep goes to the disk in the frame of the lines that it led to, and is read back from
//!   there (`state`).
//!
//! The format is in `frame` and `marks`, the decisions in `index` and `shares`, the write side in
//! `log`, what happens after a crash in `recovery`; all of them know nothing of threads. With threads:
//! who waits for room in `room`, the thread that writes in `committer`, what is read back in `reader`,
//! what becomes of it in `receipt`. What is told of it is in `status`, and of a stopped gateway's in
//! `look`.

mod frame;
mod range_set;
mod release_marks;
mod index;
mod state_log;
mod quota;
mod parked;
mod disk;
mod recovery;
mod log;
mod deferred;
mod append;
mod receipt;
mod reader;
mod committer;
mod status;
mod inspect;
pub mod limits;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod handle;
pub(crate) mod commit_queue;
pub(crate) mod compaction;
pub(crate) mod codec;
pub(crate) mod ids;
pub(crate) mod error;
pub(crate) mod segment_scan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::reader::{FetchReader, durable};
use crate::shared::Shared;
use tidegate_core::durable::{Durable, DurableLines};
use tidegate_core::ids::DatabaseName;

pub use crate::error::SpoolError;
pub use crate::handle::OpenedSpool;
pub use crate::handle::Spool;
pub use crate::parked::ParkedStatus;
pub use crate::recovery::RecoveryReport;
pub use crate::settings::SpoolSettings;
pub use crate::status::BacklogStatus;
pub use crate::status::SpoolStatus;
pub use tidegate_core::tenant::settings::WhenFull;

/// The lines that lie in a spool. It keeps none of its threads.
struct Lines(Arc<Shared>);

impl DurableLines for Lines {
    fn fetch(&self, database: &DatabaseName, bytes_max: usize) -> (Vec<Durable>, bool) {
        let Self(shared) = self;
        let hot = shared.settings.hot();
        let (wanted, more) = shared.index_between_groups().fetch(database, bytes_max as u64, &hot);
        let mut reader = FetchReader::new(shared);
        let (durables, all) = reader.read_all(wanted, |wanted, header, body, synced| {
            durable(shared, database, wanted, (header, body), synced).map(|durable| vec![durable])
        });
        (durables, more || !all)
    }
}

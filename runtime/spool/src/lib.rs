//! The durable spool: a message is acknowledged once its lines are synced here, and they stay until
//! the database has them.
//!
//! - Appends of all sessions share one sync; the next one starts when the last one ends.
//! - A frame is the unit of sync, of release and of loss. Frames of each tenant and database are
//!   released on their own: a dead database neither blocks nor pins the others.
//! - Recent lines go to the writer from memory. Beyond `memory_bytes_max`, or where a database is
//!   behind, they are read back when their turn comes.
//! - Shares: a tenant that has filled its own waits (`block`) or loses its oldest lines, counted
//!   (`drop_oldest`).
//! - The decoders' state goes to the disk in the frame of the lines that it led to, and is read back from
//!   there (`state_log`).
//!
//! The format is in `frame` and `release_marks`, the decisions in `index` and `quota`, the write side in
//! `log`, the start after a crash in `recovery`; all of them know nothing of threads. With threads:
//! admission to the disk in `append`, the thread that writes in `committer`, reading back in `reader`, the
//! writer's reports in `receipt`. The status is in `status`, and that of a stopped gateway in `inspect`.

pub(crate) mod settings;
pub mod limits;
pub(crate) mod ids;
pub(crate) mod handle;
mod append;
mod quota;
mod quota_state;
mod deferred;
pub(crate) mod commit_queue;
mod committer;
mod log;
mod frame;
mod closer;
mod disk;
mod index;
mod range_set;
mod release_marks;
mod state_log;
pub(crate) mod compaction;
pub(crate) mod segment_scan;
mod recovered_frame;
mod recovered_stream;
mod recovered_totals;
mod recovery_report;
mod recovered_log;
mod recovery;
mod reader;
mod receipt;
mod parked;
mod status;
mod inspect;
pub(crate) mod shared;
pub(crate) mod codec;
pub(crate) mod error;
#[cfg(test)]
mod tests;

pub use crate::error::SpoolError;
pub use crate::handle::OpenedSpool;
pub use crate::handle::Spool;
pub use crate::parked::ParkedStatus;
pub use crate::recovery_report::RecoveryReport;
pub use crate::settings::SpoolSettings;
pub use crate::status::BacklogStatus;
pub use crate::status::SpoolStatus;
pub use tidegate_core::tenant::settings::WhenFull;

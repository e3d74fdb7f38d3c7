//! What was refused, kept for the person who owns the device: durable, bounded, readable.
//!
//! - A message is settled as quarantined only when its entry is synced.
//! - It is a ring: what leaves it because of its bounds is counted as expired, a tenant. Every tenant
//!   has a share of it: one that floods it pushes out what is its own.
//! - An entry that was replayed, or that the operator removed, is overwritten with spaces where it
//!   stands, and counted as replayed or removed.
//! - What was refused before anybody was authenticated has a ring of its own, one tenth of the
//!   bytes, 1 KiB of payload each and ten entries a second and reason: a stranger cannot push out
//!   what a tenant's own devices left here. What is not kept is counted all the same.
//! - On disk: `{seq:016}.jsonl`, and `a-{seq:016}.jsonl` for strangers; one JSON object a line.
//!   Credentials in a payload are kept, because a replay needs them, and masked where shown.

mod entry;
mod filter;
mod segment;
mod ring;
mod writer;
mod reader;
#[cfg(test)]
mod tests;
pub mod limits;
pub(crate) mod settings;
pub(crate) mod error;
pub(crate) mod queue;
pub(crate) mod handle;
pub(crate) mod sampler;

pub use crate::entry::Entry;
pub use crate::error::QuarantineError;
pub use crate::filter::Filter;
pub use crate::filter::FilterError;
pub use crate::handle::Quarantine;
pub use crate::queue::StoredObserver;
pub use crate::reader::Entries;
pub use crate::ring::ReasonCount;
pub use crate::ring::RemovalReason;
pub use crate::segment::EntryId;
pub use crate::segment::EntryLocation;
pub use crate::settings::QuarantineSettings;
pub use tidegate_core::redact::redact_payload;

//! The store of refused messages, for the owner of the device: durable, bounded, readable.
//!
//! - A message is settled as quarantined only when its entry is synced.
//! - It is a ring: an entry that leaves it because of its bounds is counted as expired, a tenant. Every
//!   tenant has a share of it: one that floods it pushes out its own entries.
//! - An entry that was replayed, or that the operator removed, is overwritten with spaces where it
//!   stands, and counted as replayed or removed.
//! - Messages of devices that the registry has are all stored, whole. Those whose sender proved nothing
//!   have a ring of their own, one tenth of the bytes: they push out no entry of a device that did.
//! - Messages of devices that it does not have have a third ring: one tenth of the bytes, 1 KiB of payload
//!   each and ten entries a second and reason. Those beyond are dropped, and counted by reason.
//! - On disk: `{seq:016}.jsonl`, `u-{seq:016}.jsonl` for unproven and `a-{seq:016}.jsonl` for unknown
//!   devices; one JSON object a line.
//!   Credentials in a payload are stored, because a replay needs them, and masked for display.

mod handle;
mod settings;
mod entry;
mod queue;
mod writer;
mod tenant_bytes;
mod ring;
mod segment;
mod reader;
mod filter;
mod sampler;
mod error;
pub mod limits;
#[cfg(test)]
mod tests;

pub use crate::entry::Entry;
pub use crate::error::QuarantineError;
pub use crate::filter::Filter;
pub use crate::filter::FilterError;
pub use crate::handle::Quarantine;
pub use crate::queue::StoredObserver;
pub use crate::reader::Entries;
pub use crate::ring::ReasonCount;
pub use crate::ring::RemovalReason;
pub use crate::ring::SeriesBytes;
pub use crate::segment::EntryId;
pub use crate::segment::EntryLocation;
pub use crate::settings::QuarantineSettings;
pub use tidegate_core::redact::redact_payload;

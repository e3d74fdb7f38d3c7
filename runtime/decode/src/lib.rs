//! Decoders: WebAssembly components that tenants ship, run in a sandbox, so that they hurt nobody.
//!
//! - Each call is bounded in CPU time, memory, tables, stack, output and host calls. A guest has no
//!   network and no files, and no clock or random numbers but those that follow from the message (`sandbox/wasi`).
//! - An instance serves one tenant and one route on one thread. Any fault drops it; the batch is
//!   then decoded message by message, and only the messages that fail alone are refused.
//! - Decode threads share a `DecodeHost`. Its routing table is replaced whole from outside, and each
//!   thread takes the new one between two batches.
//! - The values that a guest sets in its state travel with the lines of its message, and are dropped with
//!   them if the message is refused (`state`).
//! - Faults of ours (the pool is full, the host is out of memory) never blame a guest.

pub mod settings;
pub mod error;
pub mod sink;
pub mod sandbox;
pub mod state;
pub mod route;
pub mod host;
pub mod decoder;
pub mod schedule;
mod placed_messages;
mod batching_sink;
pub mod pool;
pub mod limits;

pub use crate::decoder::Decoder;
pub use crate::error::SandboxError;
pub use crate::host::DecodeHost;
pub use crate::pool::DecodePool;
pub use crate::sandbox::class::GuestClass;
pub use crate::settings::DecodeSettings;
pub use crate::settings::LargeClassSettings;
pub use crate::sink::BirthRequests;
pub use crate::sink::DecodeSink;
pub use crate::state::StateStore;

//! The guest interface `tidegate:ingest` on the host's side, in every version that was ever released.
//!
//! A guest's exports are the same in all of them so far, and bare functions: what is called is looked up
//! without a version. What a guest imports carries the version that it was built for, and all of them
//! are offered side by side.

mod host_state;
mod v1_0;
mod v0_1;

use wasmtime::component::Linker;

pub use host_state::{HostState, MessageContext, StoreLimiter};
pub use v1_0::{Batch, Decoded, Exports, ExportsPre, Message, Outcome, Refusal, Route};

/// Offers the interface, in every version.
///
/// # Errors
/// Never in practice: names are defined once.
pub fn offer(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    v1_0::offer(linker)?;
    v0_1::offer(linker)
}

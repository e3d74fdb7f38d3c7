//! The guest interface `tidegate:ingest` on the host's side, in every version that was ever released.
//!
//! A guest's exports are the same in all of them so far, and bare functions: calls are looked up
//! without a version. The imports of a guest carry the version that it was built for, and all versions
//! are offered side by side.

pub(crate) mod host_state;
pub(crate) mod v1_0;
mod v1_1;
mod v0_1;

use wasmtime::component::Linker;

pub use crate::sandbox::abi::host_state::HostState;
pub use crate::sandbox::abi::host_state::MessageContext;
pub use crate::sandbox::abi::host_state::StoreLimiter;
pub use crate::sandbox::abi::v1_0::bindings::Decoder as Exports;
pub use crate::sandbox::abi::v1_0::bindings::DecoderPre as ExportsPre;
pub use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Batch;
pub use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Decoded;
pub use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Message;
pub use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Outcome;
pub use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Refusal;
pub use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Route;

/// Offers the interface, in every version.
///
/// # Errors
/// Never in practice: names are defined once.
pub fn offer(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    v1_1::offer(linker)?;
    v1_0::offer(linker)?;
    v0_1::offer(linker)
}

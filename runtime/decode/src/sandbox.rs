//! The sandbox that guests run in: engines, components, instances, and the interface on the host's
//! side.

pub mod class;
pub mod cpu_clock;
pub mod engine;
pub mod interface;
pub mod wasi;
pub mod abi;
pub mod guest;
pub mod sandboxes;
pub mod memory;
pub mod instance_memory;
pub mod instance;

//! One message through the same code as in the stream, with nothing sent and nothing counted.

pub(crate) mod verdict;
pub(crate) mod captured_output;
pub mod dry_run;
pub(crate) mod registry_lookup;
pub(crate) mod single_guest_dir;
pub(crate) mod hex;
pub(crate) mod mapping_trace;
pub mod cases;
pub mod bless;
pub mod tapped_case;
pub mod stopped_gateway;
pub(crate) mod guest_store;

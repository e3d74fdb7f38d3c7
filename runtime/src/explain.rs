//! TODO

pub mod dry_run;
pub mod cases;
pub mod stopped_gateway;
pub(crate) mod verdict;
pub(crate) mod registry_lookup;

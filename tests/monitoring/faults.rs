//! The faults, each made at a real gateway while a real Prometheus watches it, and the panels and alerts that show it.

pub mod traffic;
pub mod well;
pub mod databases;
pub mod refusals;
pub mod decoders;
pub mod disk;
pub mod tenants;
pub mod away;

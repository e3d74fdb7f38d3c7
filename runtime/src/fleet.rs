//! Many gateways: how one of them leaves and comes back, what each tells of itself, and what all of them sum up to.

pub mod drain;

//! From a PUBLISH to its PUBACK: one token for each message, settled once its outcome is durable.

pub mod token;
pub mod settle;
pub mod origin;
pub mod tap_probe;
pub mod tracker;
pub mod ledger;
pub mod redelivery;
pub mod window;
pub mod in_flight;

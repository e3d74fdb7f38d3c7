//! TODO

pub mod token;
pub mod redelivery;
pub mod origin;
pub mod ledger;
pub mod in_flight;
pub mod window;
pub mod tracker;

//! Many gateways: how one of them leaves and comes back, what each tells of itself, and what all of them sum up to.
//!
//! Each gateway keeps a row in PostgreSQL. Nothing of the data path waits for it, or reads it.

pub mod drain;
pub mod fleet_books;
pub mod store;
pub mod report;
pub mod reporter;

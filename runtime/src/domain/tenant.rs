//! Tenants: the settings that hold for each, and the table that has each of them once.

pub mod settings;
pub mod rates;
pub mod table;

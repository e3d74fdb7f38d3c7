//! Tenants: the settings that hold for each.

pub mod settings;

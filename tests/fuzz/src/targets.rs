//! One file for each target.

pub mod mqtt;
pub mod json;
pub mod lines;
pub mod redact;
pub mod envelope;
pub mod route_file;
pub mod config;
pub mod registry_csv;
pub mod quarantine;
pub mod spool;

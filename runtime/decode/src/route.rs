//! Routes: the versions of guests that decode a tenant's message type, and their counts.

pub mod rules;
pub mod guest_log;
pub mod ignored_names;
pub mod recent_messages;
pub mod stats;
pub mod version;
pub mod probation;
pub mod table;

//! The nouns, without I/O: what a message is, what may become of it, and how it is counted.

pub mod ids;
pub mod reason;
pub mod secrets;
pub mod message;
pub mod durable;
pub mod refusal;
pub mod slot;
pub mod session;
pub mod state;
pub mod replay;
pub mod parked;
pub mod topic;
pub mod identity;
pub mod answer_topic;
pub mod rate;
pub mod buckets;
pub mod database;
pub mod tenancy;
pub mod pacing;
pub mod guest_path;
pub mod acks;
pub mod line;
pub mod books;
pub mod histogram;
pub mod activity;
pub mod limits;

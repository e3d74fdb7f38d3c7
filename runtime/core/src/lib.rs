//! The nouns of the gateway: messages and their states, acknowledgements, tenants, line protocol, and the
//! accounts. No network and no storage of messages. What parts share of files is here: how one is replaced, and how a
//! change of one is seen.

pub mod message;
pub mod ack;
pub mod books;
pub mod tenant;
pub mod ids;
pub mod device;
pub mod identity;
pub mod topic;
pub mod envelope_content;
pub mod line_protocol;
pub mod durable;
pub mod synced;
pub mod parked;
pub mod decoder_state;
pub mod route_key;
pub mod reason;
pub mod detail;
pub mod redact;
pub mod redacted_url;
pub mod refused_lines;
pub mod refused_topic;
pub mod receive_clock;
pub mod age_clock;
pub mod device_hash;
pub mod atomic_file;
pub mod file_stamp;
pub mod disk_reserve;
pub mod batching;
pub mod token_bucket;
pub mod keyed_buckets;
pub mod histogram;
pub mod worker;
pub mod start_progress;
pub mod limits;

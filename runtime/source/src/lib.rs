//! The sources of messages: a session at a broker, and devices that connect to the gateway.
//!
//! One contract for both: each message comes with a token, downstream settles the token with an
//! outcome, and the source writes the PUBACKs of the longest settled prefix, in the order of the
//! PUBLISHes, on the connection that they came by and on no other.
//!
//! Both speak MQTT by the same code (`mqtt`): control packets are rumqttc's, the loops are ours. Three
//! promises depend on details that a client library hides: a packet of any length neither ends the
//! session nor lies in memory, all messages of one read go on as one group, and PUBACKs leave
//! in one write a group, on their own connection. Payloads are copied out of the read buffer, one
//! allocation each: a slice would pin 64 KiB for as long as one of its messages waits.

pub mod sink;
mod status;
pub mod listener;
pub mod broker;
mod publish_receiver;
mod read_coalescer;
pub mod mqtt;
pub mod limits;

pub use crate::status::SourceStatus;
pub use crate::status::StopSignal;

//! Where messages come from: a broker's session, and devices that connect to us.
//!
//! One contract for both: each message comes with a token, downstream settles the token with an
//! outcome, and the source writes the PUBACKs of the longest settled prefix, in the order of the
//! PUBLISHes, on the connection that they came by and on no other.
//!
//! Both speak MQTT by the same code (`mqtt`): control packets are rumqttc's, the loops are ours. Three
//! promises depend on what a client library's loop hides: a packet of any length must not end the
//! session nor be held in memory, all that one read gave goes on as one group, and PUBACKs leave
//! in one write a group, on their own connection. Payloads are copied out of the read buffer, one
//! allocation each: a slice would pin 64 KiB for as long as one of its messages waits.

pub mod sink;
pub mod mqtt;
mod publish_receiver;
mod read_coalescer;
pub mod broker;
pub mod listener;
pub mod limits;
pub(crate) mod status;

pub use crate::status::SourceStatus;
pub use crate::status::StopSignal;

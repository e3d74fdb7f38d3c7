//! The envelopes of payloads, read natively and once, before any guest runs: `pulse.rs` reads the credentials of a
//! device; the others read an uplink message of a network server.

mod pulse;
mod uplink;
mod things_stack;
mod chirpstack;
mod content;

pub use crate::envelope::chirpstack::read as read_chirpstack;
pub use crate::envelope::content::content;
pub use crate::envelope::pulse::{Envelope, EnvelopeError, EnvelopeValue};
pub use crate::envelope::things_stack::read as read_things_stack;
pub use crate::envelope::uplink::{Uplink, UplinkError};

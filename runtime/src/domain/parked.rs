//! A message that is parked: durable in the spool as it came, acknowledged, and ours to take up again
//! when what held it up is gone.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::books::Account;
use super::ids::TenantId;
use super::message::{Received, Via};
use super::replay::Replay;

/// Makes messages durable as they came.
pub trait Parking: Send + Sync + fmt::Debug {
    /// Takes a message; its slot is settled as parked once it is durable.
    ///
    /// # Errors
    /// The message, where there is no room for it.
    fn park(&self, tenant: &TenantId, account: &Arc<Account>, message: Received)
    -> Result<(), Box<Received>>;
}

/// What is kept of a message that is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedMessage {
    pub topic: String,
    pub payload: Bytes,
    /// The size on the wire, which may be more.
    pub payload_bytes: usize,
    /// When it was received, in nanoseconds since the Unix epoch.
    pub received_ns: i64,
    pub via: Via,
    /// The entry of quarantine that it came from, and how many times it was replayed.
    pub replay: Option<(String, u32)>,
}

impl ParkedMessage {
    /// What is to be kept of a message.
    pub fn of(message: &Received) -> Self {
        Self {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            payload_bytes: message.payload_bytes,
            received_ns: message.received_ns,
            via: message.via,
            replay: message.slot.replay().map(|Replay { of, replays, .. }| (of.clone(), *replays)),
        }
    }
}

/// A parked message on its way back into the flow.
#[derive(Debug)]
pub struct TakenUp {
    /// Whose it is parked as.
    pub tenant: TenantId,
    pub message: ParkedMessage,
    pub release: Box<dyn Release>,
}

/// Told what became of a message that was taken up; it goes along with its slot.
pub trait Release: Send + Sync + fmt::Debug {
    /// Its outcome is durable elsewhere: it is not needed here any more.
    fn done(&self);
    /// Nothing became of it: it waits where it is durable, and is taken up again.
    fn back(&self);
}

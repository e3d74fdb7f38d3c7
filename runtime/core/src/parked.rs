//! A message that is parked: durable in the spool as it came, acknowledged, and ours to take up again
//! when what held it up is gone.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::ack::origin::{ReplayedEntry, UnparkGuard};
use crate::books::Account;
use crate::ids::TenantId;
use crate::message::{Received, Via};

/// No room for any message: they wait unacknowledged.
#[derive(Debug)]
pub struct NoParkingStore;

impl Parking for NoParkingStore {
    fn park(&self, _: &TenantId, _: &Arc<Account>, message: Received) -> Result<(), Box<Received>> {
        Err(Box::new(message))
    }
}

/// Makes messages durable as they came.
pub trait Parking: Send + Sync + fmt::Debug {
    /// Takes a message; its token is settled as parked once it is durable.
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
            replay: message.token.replay().map(|ReplayedEntry { of, replays, .. }| (of.clone(), *replays)),
        }
    }
}

/// A parked message on its way back into the flow.
#[derive(Debug)]
pub struct UnparkedMessage {
    /// Whose it is parked as.
    pub tenant: TenantId,
    pub message: ParkedMessage,
    pub release: Box<dyn UnparkGuard>,
}

//! Parked messages: durable in the spool as they were received, acknowledged, and unparked once the
//! registry or the tenant's share allows it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::ack::origin::{ReplayedEntry, UnparkGuard};
use crate::books::Account;
use crate::ids::TenantId;
use crate::message::{Received, Via};

/// A store without room for any message: messages wait unacknowledged.
#[derive(Debug)]
pub struct NoParkingStore;

impl ParkingStore for NoParkingStore {
    fn park(&self, _: &TenantId, _: &Arc<Account>, message: Received) -> Result<(), Box<Received>> {
        Err(Box::new(message))
    }
}

/// Makes messages durable as they were received.
pub trait ParkingStore: Send + Sync + fmt::Debug {
    /// Parks a message; its token is settled as parked once it is durable.
    ///
    /// # Errors
    /// The message, if there is no room for it.
    fn park(&self, tenant: &TenantId, account: &Arc<Account>, message: Received)
    -> Result<(), Box<Received>>;
}

/// The stored parts of a parked message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedMessage {
    pub topic: String,
    pub payload: Bytes,
    /// The size on the wire, which may be more.
    pub payload_bytes: usize,
    /// Time of receipt in nanoseconds since the Unix epoch.
    pub received_ns: i64,
    pub via: Via,
    /// The entry of quarantine that it comes from, and its number of replays.
    pub replay: Option<(String, u32)>,
}

impl ParkedMessage {
    /// Copies the parts of a message that are stored.
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

/// A parked message on its way back into the pipeline.
#[derive(Debug)]
pub struct UnparkedMessage {
    /// The tenant that it is parked under.
    pub tenant: TenantId,
    pub message: ParkedMessage,
    pub guard: Box<dyn UnparkGuard>,
}

//! The contract between a source and the code that takes its messages.

use std::future::Future;
use std::time::Duration;

use tokio::sync::broadcast;

use tidegate_core::detail::Detail;
use tidegate_core::identity::{AcceptedProof, AuthError, Claim, Identity, RegistryChange};
use tidegate_core::message::Received;
use tidegate_core::reason::Reason;

/// Messages that are to be offered again later: their device, or its tenant, is over its rate.
#[derive(Debug)]
pub struct Backpressure {
    /// All that were not taken, in order.
    pub messages: Vec<Received>,
    pub wait: Duration,
}

/// Takes the messages of every source. A message's token is its only way back: the PUBACK leaves once
/// it is settled.
pub trait MessageSink: Send + Sync + 'static {
    /// Takes all messages of one read of a socket, in the order of the wire, never empty and at most
    /// `GROUP_MESSAGES_MAX`. It may wait for room; the connection is not read meanwhile, but
    /// its PUBACKs and pings go on. It is cancelled half way only at the deadline of a stop. Only messages of
    /// the listener are ever given back.
    fn accept(&self, messages: Vec<Received>) -> impl Future<Output = Option<Backpressure>> + Send;

    /// Counts and settles a message that its source drops on purpose, such as `Overload` or `Retained`.
    /// It must not block.
    fn discard(&self, message: Received, reason: Reason);

    /// Counts and settles a message that may not be taken from its sender, who is authenticated. It is stored
    /// as that sender's, also if its topic names another device. It must not block.
    fn refuse(&self, message: Received, sender: &Identity, reason: Reason, detail: Detail);

    /// Checks that a device that connects is the one it claims to be. It may wait for a registry, in bounded
    /// time.
    fn authenticate(&self, claim: Claim) -> impl Future<Output = Result<AcceptedProof, AuthError>> + Send;

    /// Checks again that a connected device may stay. It may wait for a registry, in bounded time.
    fn recheck(
        &self,
        identity: &Identity,
        proof: &AcceptedProof,
    ) -> impl Future<Output = Result<(), AuthError>> + Send;

    /// Changes of the registry from now on.
    fn registry_changes(&self) -> broadcast::Receiver<RegistryChange>;

    /// Called when the broker has kept our session while we were `offline`. The messages that it queued come
    /// next: a backlog, not a burst.
    fn session_resumed(&self, offline: Duration) {
        let _ = offline;
    }
}

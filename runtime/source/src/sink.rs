//! The contract between a source and whatever judges its messages.

use std::future::Future;
use std::time::Duration;

use tidegate_core::detail::Detail;
use tidegate_core::identity::{AuthError, Claim, Identity};
use tidegate_core::message::Received;
use tidegate_core::reason::Reason;

/// Takes the messages of every source. A message's token is its only way back: settling it is what
/// lets the PUBACK leave.
pub trait MessageSink: Send + Sync + 'static {
    /// Takes all that one read of a socket gave, in the order of the wire, never empty and at most
    /// `GROUP_MESSAGES_MAX`. It may wait for room; the connection is not read meanwhile, but
    /// its PUBACKs and pings go on. It is cancelled half way only at the deadline of a stop.
    fn accept(&self, messages: Vec<Received>) -> impl Future<Output = ()> + Send;

    /// Counts and settles a message that its source drops on purpose: `Overload` or `Retained`.
    /// It must not block.
    fn discard(&self, message: Received, reason: Reason);

    /// Counts and settles a message that may not be taken from its sender, whose identity is proven.
    /// It is kept as that sender's, whatever its topic names. It must not block.
    fn refuse(&self, message: Received, sender: &Identity, reason: Reason, detail: Detail);

    /// Whether a device that connects is who it says. It may wait for a registry, in bounded time.
    fn authenticate(&self, claim: Claim) -> impl Future<Output = Result<(), AuthError>> + Send;

    /// The broker kept our session while we were away for so long, and what it queued comes now: a
    /// backlog, not a burst.
    fn session_resumed(&self, away: Duration) {
        let _ = away;
    }
}

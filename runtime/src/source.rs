//! Where messages come from: a broker's session, and devices that connect to us.
//!
//! One contract for both: each message comes with a slot, downstream settles the slot with an
//! outcome, and the source writes the PUBACKs of the longest settled prefix, in the order of the
//! PUBLISHes, on the connection that they came by and on no other.
//!
//! Both speak MQTT by the same code (`mqtt`): control packets are rumqttc's, the loops are ours. Three
//! promises depend on what a client library's loop hides: a packet of any length must not end the
//! session nor be held in memory, all that one read gave goes on as one group, and PUBACKs leave
//! in one write a group, on their own connection. Payloads are copied out of the read buffer, one
//! allocation each: a slice would pin 64 KiB for as long as one of its messages waits.

pub mod intake;
pub mod mqtt;
mod reception;
mod gathering;
mod link;
pub mod broker;
pub mod listener;

use tokio::sync::watch;
use tokio::time::Instant;

/// The order to stop: None while running; then the moment until which a source that reads no more
/// goes on sending PUBACKs.
pub type Stop = watch::Receiver<Option<Instant>>;

/// Whether messages can come in, for readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// A broker's session stands, or the listener's socket is open.
    pub connected: bool,
    /// The broker has granted our filter; true for a listener that is open.
    pub subscribed: bool,
    /// What went wrong last, for the operator; None once all is well again.
    pub last_error: Option<String>,
}

impl SourceStatus {
    pub fn is_ready(&self) -> bool {
        self.connected && self.subscribed
    }
}

/// Waits for the order to stop and gives its deadline. A sender that is gone never gives it.
pub(crate) async fn stopped(stop: &mut Stop) -> Instant {
    let deadline = stop.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
    match deadline {
        Some(deadline) => deadline,
        None => std::future::pending().await,
    }
}

/// Waits for the deadline that the order to stop sets, for what must not outlive it.
pub(crate) async fn past_deadline(mut stop: Stop) {
    let deadline = stopped(&mut stop).await;
    tokio::time::sleep_until(deadline).await;
}

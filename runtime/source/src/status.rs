//! The state of a source, and the order to stop it.

use tokio::sync::watch;
use tokio::time::Instant;

/// The order to stop: None while running; then the moment until which a source that reads no more
/// goes on sending PUBACKs.
pub type StopSignal = watch::Receiver<Option<Instant>>;

/// The state of a source, for readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// A broker's session stands, or the listener's socket is open.
    pub connected: bool,
    /// The broker has granted our filter; true for a listener that is open.
    pub subscribed: bool,
    /// The last fault, for the operator; None once all is well again.
    pub last_error: Option<String>,
}

impl SourceStatus {
    pub fn is_ready(&self) -> bool {
        self.connected && self.subscribed
    }
}

/// Waits for the order to stop and gives its deadline. A sender that is gone never gives it.
pub(crate) async fn stopped(stop: &mut StopSignal) -> Instant {
    let deadline = stop.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
    match deadline {
        Some(deadline) => deadline,
        None => std::future::pending().await,
    }
}

/// Waits until the deadline of the order to stop is over, which can be brought forward; for tasks that must
/// not outlive it.
pub(crate) async fn past_deadline(mut stop: StopSignal) {
    loop {
        let deadline = stopped(&mut stop).await;
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return,
            Ok(()) = stop.changed() => {}
        }
    }
}

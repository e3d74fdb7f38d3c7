//! The joint between admission and spool for messages that are parked: where they go, and how they
//! come back once they can be admitted.
//!
//! - They are read back in pieces, so many on their way at once, and submitted in order.
//! - A message leaves the spool once its outcome is durable. One on its way when the gateway dies is
//!   unparked again at the next start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admission::registry_tasks::AdmittedSink;
use crate::admission::unpark::UnparkRequest;
use crate::core::ack::origin::ReplayedEntry;
use crate::core::ack::token::AckToken;
use crate::core::ack::window::ReceiveWindow;
use crate::core::books::Books;
use crate::core::message::Received;
use crate::core::parked::UnparkedMessage;
use crate::core::worker;
use crate::limits;
use crate::pipeline::ingress::Ingress;
use crate::spool::Spool;

/// The deadline of a stop, once one was asked for.
type Stopping = watch::Receiver<Option<tokio::time::Instant>>;

const POLL_INTERVAL: Duration = Duration::from_millis(limits::UNPARK_POLL_MS);

/// Submits parked messages whenever they can be admitted, until the gateway stops.
pub fn start(
    spool: &Spool,
    ingress: &Arc<Ingress>,
    books: &Arc<Books>,
    stopping: Stopping,
) -> JoinHandle<()> {
    let window = Arc::new(ReceiveWindow::new(limits::UNPARKED_MESSAGES_MAX, limits::UNPARKED_BYTES_MAX));
    let unparker = Unparker { spool: spool.clone(), ingress: ingress.clone(), books: books.clone(), window };
    tokio::spawn(worker::vital("parked", unparker.run(stopping)))
}

struct Unparker {
    spool: Spool,
    ingress: Arc<Ingress>,
    books: Arc<Books>,
    /// Its own: unparked messages on their way take no room of incoming ones.
    window: Arc<ReceiveWindow>,
}

impl Unparker {
    async fn run(self, mut stopping: Stopping) {
        let mut told = false;
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| stop.is_some()) => return,
                () = self.ready_to_unpark(&mut told) => {}
            }
            let spool = self.spool.clone();
            let taken = tokio::task::spawn_blocking(move || spool.unpark(limits::UNPARK_READ_BYTES));
            let taken = taken.await.expect("reading the spool does not panic");
            if taken.is_empty() {
                // It waits for room that others of its tenant take.
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!("what was parked goes on");
            }
            // Never cut short: a message that was counted as on its way gets there.
            self.submit(taken.into_iter().map(|taken| self.unpark_request(taken)).collect()).await;
        }
    }

    /// Waits until something is parked, can be admitted, and there is room for it.
    async fn ready_to_unpark(&self, told: &mut bool) {
        loop {
            self.spool.parked().await;
            self.window.until_not_full().await;
            if self.ingress.admission.can_unpark() {
                return;
            }
            *told = false;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn unpark_request(&self, UnparkedMessage { tenant, message, guard }: UnparkedMessage) -> UnparkRequest {
        let bytes = message.topic.len() + message.payload.len();
        let replay = message.replay.map(|(of, replays)| Arc::new(ReplayedEntry::new(of, replays)));
        let token = AckToken::parked(&self.window, guard, replay, bytes);
        let account = self.books.of_known(tenant.as_str());
        let message = Received {
            topic: message.topic,
            payload: message.payload,
            received_ns: message.received_ns,
            via: message.via,
            token,
            payload_bytes: message.payload_bytes,
        };
        UnparkRequest { tenant, message, account }
    }

    async fn submit(&self, mut returning: VecDeque<UnparkRequest>) {
        while !returning.is_empty() {
            let (mut admitted, refused, devices) = self.ingress.admission.unpark(&mut returning).into_parts();
            let in_flight = &self.ingress.egress.in_flight;
            admitted.iter_mut().for_each(|message| message.token.enter(in_flight));
            self.ingress.submit(admitted, refused).await;
            self.ingress.admission.finished(&devices);
        }
    }
}

//! The joint from the sources through admission to the decode threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::admission::registry_tasks::AdmittedSink;
use crate::admission::{Admission, AdmitResult};
use crate::core::books::Books;
use crate::core::detail::Detail;
use crate::core::identity::{AcceptedProof, AuthError, Claim, Identity, RegistryChange};
use crate::core::limits::RECEIVE_STAMP_GAP_NS;
use crate::core::message::{Admitted, Received, RefusedMessage};
use crate::core::reason::Reason;
use crate::core::receive_clock::ReceiveClock;
use crate::decode::{DecodePool, DecodeSink};
use crate::pipeline::egress::Egress;
use crate::pipeline::tap::Tap;
use crate::source::sink::{Backpressure, MessageSink};

/// The entry of the stream, for sources and for messages that come back.
pub struct Ingress {
    pub(super) admission: Arc<Admission>,
    /// Taken when the gateway stops.
    pool: Mutex<Option<Arc<DecodePool>>>,
    pub(super) egress: Arc<Egress>,
    books: Arc<Books>,
    /// Gives the messages of all sources their time.
    clock: Arc<ReceiveClock>,
    tap: Arc<Tap>,
}

impl Ingress {
    pub fn new(
        admission: Arc<Admission>,
        pool: DecodePool,
        egress: Arc<Egress>,
        books: Arc<Books>,
        clock: Arc<ReceiveClock>,
        tap: Arc<Tap>,
    ) -> Self {
        Self { admission, pool: Mutex::new(Some(Arc::new(pool))), egress, books, clock, tap }
    }

    /// Waits until nothing is between sources and spool, or the deadline.
    pub async fn drain(&self, deadline: Instant) {
        let busy = || self.egress.in_flight.count() > 0 || self.admission.awaits_answers();
        while busy() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.pool.lock().take();
    }
}

impl AdmittedSink for Ingress {
    async fn submit(&self, admitted: Vec<Admitted>, refused: Vec<RefusedMessage>) {
        if !refused.is_empty() {
            self.egress.refused(refused);
        }
        for message in &admitted {
            message.device.activity.record(message.received_ns);
        }
        let pool = self.pool.lock().clone();
        // Where it is stopped they are dropped unsettled, and come again.
        if let Some(pool) = pool {
            pool.submit(admitted).await;
        }
    }
}

impl MessageSink for Ingress {
    async fn accept(&self, mut messages: Vec<Received>) -> Option<Backpressure> {
        let first_ns = self.clock.reserve(messages.len());
        let mut in_flight = self.egress.in_flight.enter_all(messages.len());
        for (stamp_ns, message) in (first_ns..).step_by(RECEIVE_STAMP_GAP_NS as usize).zip(&mut messages) {
            message.received_ns = stamp_ns;
            message.token.set_in_flight(in_flight.pop());
        }
        if self.tap.is_watched() {
            self.tap.probe(&mut messages);
        }
        let AdmitResult { admitted, refused, mut over_rate, wait } = self.admission.admit(messages);
        // A message that waits at its source is not in flight.
        over_rate.iter_mut().for_each(|message| drop(message.token.take_in_flight()));
        if self.tap.is_watched() {
            // It comes again here.
            over_rate
                .iter_mut()
                .filter_map(|message| message.token.take_probe())
                .for_each(|probe| drop(probe.finish()));
        }
        self.submit(admitted, refused).await;
        (!over_rate.is_empty()).then_some(Backpressure { messages: over_rate, wait })
    }

    fn discard(&self, message: Received, reason: Reason) {
        let account = match self.admission.names_of(&message.topic) {
            Some(names) => self.books.of_stranger(names.tenant.of(&message.topic)),
            None => self.books.none().clone(),
        };
        tracing::debug!(topic = message.topic, %reason, "dropped");
        account.receive(1);
        message.token.drop_for(reason, &account);
    }

    fn refuse(&self, mut message: Received, sender: &Identity, reason: Reason, detail: Detail) {
        message.received_ns = self.clock.reserve(1);
        self.egress.refused(vec![self.admission.refuse_of(message, sender, reason, detail)]);
    }

    async fn authenticate(&self, claim: Claim) -> Result<AcceptedProof, AuthError> {
        self.admission.authenticate_connect(claim).await
    }

    async fn recheck(&self, identity: &Identity, proof: &AcceptedProof) -> Result<(), AuthError> {
        self.admission.check_connect(identity, proof).await
    }

    fn registry_changes(&self) -> broadcast::Receiver<RegistryChange> {
        self.admission.registry_changes()
    }

    fn session_resumed(&self, away: Duration) {
        self.admission.grant_backlog(away.as_secs_f64());
    }
}

//! The joint from the sources through admission to the decode threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::admission::Admission;
use crate::admission::registry_tasks::AdmittedSink;
use crate::core::books::{Books, Outcome};
use crate::core::detail::Detail;
use crate::core::identity::{AuthError, Claim, Identity};
use crate::core::limits::RECEIVE_STAMP_GAP_NS;
use crate::core::message::{Admitted, Received, RefusedMessage};
use crate::core::reason::Reason;
use crate::core::receive_clock::ReceiveClock;
use crate::decode::{DecodePool, DecodeSink};
use crate::pipeline::egress::Egress;
use crate::source::sink::MessageSink;

/// The entry of the stream, for sources and for messages that come back.
pub struct Ingress {
    pub(super) admission: Arc<Admission>,
    /// Taken when the gateway stops.
    pool: Mutex<Option<Arc<DecodePool>>>,
    pub(super) egress: Arc<Egress>,
    books: Arc<Books>,
    /// Gives the messages of all sources their time.
    clock: Arc<ReceiveClock>,
}

impl Ingress {
    pub fn new(
        admission: Arc<Admission>,
        pool: DecodePool,
        egress: Arc<Egress>,
        books: Arc<Books>,
        clock: Arc<ReceiveClock>,
    ) -> Self {
        Self { admission, pool: Mutex::new(Some(Arc::new(pool))), egress, books, clock }
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
        let pool = self.pool.lock().clone();
        // Where it is stopped they are dropped unsettled, and come again.
        if let Some(pool) = pool {
            pool.submit(admitted).await;
        }
    }
}

impl MessageSink for Ingress {
    async fn accept(&self, mut messages: Vec<Received>) {
        let first_ns = self.clock.reserve(messages.len());
        for (stamp_ns, message) in (first_ns..).step_by(RECEIVE_STAMP_GAP_NS as usize).zip(&mut messages) {
            message.received_ns = stamp_ns;
            message.token.enter(&self.egress.in_flight);
        }
        let (admitted, refused) = self.admission.admit(messages);
        self.submit(admitted, refused).await;
    }

    fn discard(&self, message: Received, reason: Reason) {
        let account = match self.admission.tenant_of(&message.topic) {
            Some(tenant) => self.books.of_stranger(tenant),
            None => self.books.none().clone(),
        };
        tracing::debug!(topic = message.topic, %reason, "dropped");
        account.receive(1);
        message.token.settle(Outcome::Dropped, &account);
    }

    fn refuse(&self, mut message: Received, sender: &Identity, reason: Reason, detail: Detail) {
        message.received_ns = self.clock.reserve(1);
        self.egress.refused(vec![self.admission.refuse_of(message, sender, reason, detail)]);
    }

    async fn authenticate(&self, claim: Claim) -> Result<(), AuthError> {
        self.admission.authenticate_connect(claim).await
    }

    fn session_resumed(&self, away: Duration) {
        self.admission.grant_backlog(away.as_secs_f64());
    }
}

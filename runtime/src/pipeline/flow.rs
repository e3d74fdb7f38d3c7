//! The joints of the flow: from a source through admission to the decode threads, and from those to
//! spool and quarantine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::admission::Admission;
use crate::admission::resolver::Onward;
use crate::decode::{DecodePool, DecodeSink};
use crate::domain::activity::{Activity, InFlightGuard};
use crate::domain::books::{Account, Books, Outcome};
use crate::domain::detail::Detail;
use crate::domain::identity::{Claim, Denied, Identity};
use crate::domain::limits::RECEIVE_STAMP_GAP_NS;
use crate::domain::message::{Admitted, CheckedBatch, Received, Refused};
use crate::domain::reason::Reason;
use crate::domain::receive_clock::ReceiveClock;
use crate::domain::slot::{Slot, settle_all};
use crate::quarantine::Quarantine;
use crate::source::intake::Intake;
use crate::spool::Spool;

/// Where messages leave the flow: to the spool, to quarantine, or to nowhere, on purpose.
pub struct Outlet {
    spool: Spool,
    quarantine: Quarantine,
    pub(super) activity: Arc<Activity>,
}

impl Outlet {
    pub fn new(spool: Spool, quarantine: Quarantine, activity: Arc<Activity>) -> Self {
        Self { spool, quarantine, activity }
    }
}

impl DecodeSink for Outlet {
    fn lines(&self, mut batches: Vec<CheckedBatch>) {
        let messages = batches.iter_mut().flat_map(CheckedBatch::slots_mut);
        let on_their_way: Vec<InFlightGuard> = messages.filter_map(Slot::take_in_flight).collect();
        let more_comes = self.activity.undecoded() > on_their_way.len() as u64;
        self.spool.append_all(batches, more_comes);
        // Not before they are in the queue: a stop waits for both, one after the other.
        drop(on_their_way);
    }

    fn empty(&self, messages: Vec<Slot>, account: &Arc<Account>) {
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, messages: Vec<Refused>) {
        let mut messages = messages;
        let messages_in = messages.iter_mut().filter_map(|message| message.slot.take_in_flight());
        let on_their_way: Vec<InFlightGuard> = messages_in.collect();
        self.quarantine.store_many(messages);
        drop(on_their_way);
    }
}

/// Where messages enter the flow.
pub struct Gate {
    pub(super) admission: Arc<Admission>,
    /// Taken when the gateway stops.
    pool: Mutex<Option<Arc<DecodePool>>>,
    pub(super) outlet: Arc<Outlet>,
    books: Arc<Books>,
    /// Gives the messages of all sources their time.
    clock: Arc<ReceiveClock>,
}

impl Gate {
    pub fn new(
        admission: Arc<Admission>,
        pool: DecodePool,
        outlet: Arc<Outlet>,
        books: Arc<Books>,
        clock: Arc<ReceiveClock>,
    ) -> Self {
        Self { admission, pool: Mutex::new(Some(Arc::new(pool))), outlet, books, clock }
    }

    /// Waits until nothing is between sources and spool, or the deadline.
    pub async fn finish_decoding(&self, deadline: Instant) {
        let busy = || self.outlet.activity.undecoded() > 0 || self.admission.awaits_answers();
        while busy() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.pool.lock().take();
    }
}

impl Onward for Gate {
    async fn go_on(&self, admitted: Vec<Admitted>, refused: Vec<Refused>) {
        if !refused.is_empty() {
            self.outlet.refused(refused);
        }
        let pool = self.pool.lock().clone();
        // Where it is stopped they are dropped unsettled, and come again.
        if let Some(pool) = pool {
            pool.submit(admitted).await;
        }
    }
}

impl Intake for Gate {
    async fn accept(&self, mut messages: Vec<Received>) {
        let first_ns = self.clock.reserve(messages.len());
        for (stamp_ns, message) in (first_ns..).step_by(RECEIVE_STAMP_GAP_NS as usize).zip(&mut messages) {
            message.received_ns = stamp_ns;
            message.slot.enter(&self.outlet.activity);
        }
        let (admitted, refused) = self.admission.admit(messages);
        self.go_on(admitted, refused).await;
    }

    fn drop_message(&self, message: Received, reason: Reason) {
        let account = match self.admission.tenant_of(&message.topic) {
            Some(tenant) => self.books.of_stranger(tenant),
            None => self.books.none().clone(),
        };
        tracing::debug!(topic = message.topic, %reason, "dropped");
        account.receive(1);
        message.slot.settle(Outcome::Dropped, &account);
    }

    fn refuse_message(&self, mut message: Received, sender: &Identity, reason: Reason, detail: Detail) {
        message.received_ns = self.clock.reserve(1);
        self.outlet.refused(vec![self.admission.refuse_of(message, sender, reason, detail)]);
    }

    async fn identify(&self, claim: Claim) -> Result<(), Denied> {
        self.admission.vouch(claim).await
    }

    fn session_resumed(&self, away: Duration) {
        self.admission.grant_backlog(away.as_secs_f64());
    }
}

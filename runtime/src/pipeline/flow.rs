//! The two joints of the flow: from a source through admission to the decode threads, and from
//! those to writer and quarantine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::admission::Admission;
use crate::decode::{DecodePool, DecodeSink};
use crate::domain::activity::Activity;
use crate::domain::books::{Account, Books, Outcome};
use crate::domain::message::{CheckedBatch, Received, Refused};
use crate::domain::reason::Reason;
use crate::domain::slot::{Slot, settle_all};
use crate::quarantine::Quarantine;
use crate::source::intake::Intake;
use crate::writer::WriterHandle;

/// Where messages leave the flow: to the writer, to quarantine, or to nowhere, on purpose.
pub struct Outlet {
    writer: WriterHandle,
    quarantine: Quarantine,
    activity: Arc<Activity>,
}

impl Outlet {
    pub fn new(writer: WriterHandle, quarantine: Quarantine, activity: Arc<Activity>) -> Self {
        Self { writer, quarantine, activity }
    }
}

impl DecodeSink for Outlet {
    fn lines(&self, batch: CheckedBatch) {
        let messages = batch.messages.len() as u64;
        self.writer.append(batch);
        self.activity.passed(messages);
    }

    fn empty(&self, messages: Vec<Slot>, account: &Arc<Account>) {
        self.activity.passed(messages.len() as u64);
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, messages: Vec<Refused>) {
        self.activity.passed(messages.len() as u64);
        self.quarantine.store_many(messages);
    }

    fn set_aside(&self, messages: u64) {
        self.activity.set_aside(messages);
    }

    fn take_up(&self, messages: u64) {
        self.activity.take_up(messages);
    }
}

/// Where messages enter the flow.
pub struct Gate {
    admission: Arc<Admission>,
    /// Taken when the gateway stops.
    pool: Mutex<Option<Arc<DecodePool>>>,
    outlet: Arc<Outlet>,
    books: Arc<Books>,
}

impl Gate {
    pub fn new(admission: Arc<Admission>, pool: DecodePool, outlet: Arc<Outlet>, books: Arc<Books>) -> Self {
        Self { admission, pool: Mutex::new(Some(Arc::new(pool))), outlet, books }
    }

    /// Waits until nothing is between sources and writer, or the deadline.
    pub async fn finish_decoding(&self, deadline: Instant) {
        while self.outlet.activity.undecoded() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.pool.lock().take();
    }
}

impl Intake for Gate {
    async fn accept(&self, messages: Vec<Received>) {
        self.outlet.activity.receive(messages.len() as u64);
        let (admitted, refused) = self.admission.admit(messages);
        if !refused.is_empty() {
            self.outlet.refused(refused);
        }
        let pool = self.pool.lock().clone();
        match pool {
            Some(pool) => pool.submit(admitted).await,
            // Stopped: unsettled, they come again.
            None => self.outlet.activity.passed(admitted.len() as u64),
        }
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

    fn session_resumed(&self, away: Duration) {
        self.admission.grant_backlog(away.as_secs_f64());
    }
}

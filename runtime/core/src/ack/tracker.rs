use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ack::ledger::{AckLedger, LedgerIndex, NO_PACKET_ID, RefusalNotice};
use crate::ack::redelivery::RedeliveryFilter;
use crate::ack::token::{AckToken, Origin};
use crate::ack::window::ReceiveWindow;

/// How the sender of a refused message can be told why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalChannel {
    /// Not at all.
    #[default]
    Nothing,
    /// With the acknowledgement (MQTT 5).
    Acknowledgement,
    /// By a message on a topic of its own at the broker.
    Topic,
}

/// One connection's side of the acknowledgements: the source receives and sends, everything
/// downstream settles.
#[derive(Debug)]
pub struct AckTracker {
    pub(crate) ledger: Mutex<AckLedger>,
    /// Wakes the source's task when PUBACKs may be ready.
    pub settled: Notify,
    pub(crate) window: Arc<ReceiveWindow>,
    pub(crate) tells: RefusalChannel,
    /// When the source last read from the socket, in microseconds since the window was opened.
    read_at_us: AtomicU64,
    /// Messages that wait because their tenant's share of the spool is full.
    pub(crate) held: AtomicU64,
    /// The tenant of these has no room for more that wait: its devices are not read.
    pub(crate) stalled: AtomicBool,
    /// A message of it was let go unsettled.
    lost: AtomicBool,
    /// Its peer is a device that connected to us, and no broker.
    pub(crate) is_of_a_device: bool,
    /// Where its peer goes on after it.
    pub(crate) session: Option<Arc<RedeliveryFilter>>,
}

impl AckTracker {
    pub fn new(window: Arc<ReceiveWindow>) -> Arc<Self> {
        Self::open(window, RefusalChannel::Nothing, None)
    }

    /// A connection whose sender can be told why a message was refused.
    pub fn telling(window: Arc<ReceiveWindow>, tells: RefusalChannel) -> Arc<Self> {
        Self::open(window, tells, None)
    }

    /// One of a session, which goes on with it; the session's connection before it ends.
    pub fn of_session(window: Arc<ReceiveWindow>, session: Option<Arc<RedeliveryFilter>>) -> Arc<Self> {
        Self::open(window, RefusalChannel::Nothing, session)
    }

    /// One of a device that connected to us.
    pub fn of_device(
        window: Arc<ReceiveWindow>,
        tells: RefusalChannel,
        session: Option<Arc<RedeliveryFilter>>,
    ) -> Arc<Self> {
        Self::make(window, tells, session, true)
    }

    /// One whose sender can be told so, of a session or of none.
    pub fn open(
        window: Arc<ReceiveWindow>,
        tells: RefusalChannel,
        session: Option<Arc<RedeliveryFilter>>,
    ) -> Arc<Self> {
        Self::make(window, tells, session, false)
    }

    fn make(
        window: Arc<ReceiveWindow>,
        tells: RefusalChannel,
        session: Option<Arc<RedeliveryFilter>>,
        is_of_a_device: bool,
    ) -> Arc<Self> {
        let connection = Arc::new(Self {
            ledger: Mutex::default(),
            settled: Notify::new(),
            window,
            tells,
            read_at_us: AtomicU64::new(0),
            held: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            is_of_a_device,
            session,
        });
        if let Some(session) = &connection.session {
            session.begin(Arc::downgrade(&connection));
        }
        connection
    }

    /// Notes that the source has read from the socket: what it receives from now on came now. One
    /// reading of the clock serves all messages of a read.
    pub fn record_read(&self) {
        self.read_at_us.store(self.window.now_us(), Ordering::Relaxed);
    }

    /// Notes a QoS 1 PUBLISH of `bytes` and gives the token that stands for it.
    pub fn receive(self: &Arc<Self>, packet_id: u16, bytes: usize) -> AckToken {
        self.receive_publish(packet_id, false, bytes)
    }

    /// As `receive`, of one that may have been sent before (DUP).
    pub fn receive_publish(self: &Arc<Self>, packet_id: u16, dup: bool, bytes: usize) -> AckToken {
        let may_be_known = self.session.as_ref().is_some_and(|session| session.receive(packet_id, dup));
        let index = self.ledger.lock().receive(packet_id);
        self.token(Some(index), packet_id, may_be_known, bytes)
    }

    /// Notes a QoS 0 PUBLISH: nobody waits for its acknowledgement, but it takes room as others do.
    pub fn receive_unacknowledged(self: &Arc<Self>, bytes: usize) -> AckToken {
        self.token(None, NO_PACKET_ID, false, bytes)
    }

    fn token(
        self: &Arc<Self>,
        index: Option<LedgerIndex>,
        packet_id: u16,
        may_be_known: bool,
        bytes: usize,
    ) -> AckToken {
        let received_us = self.read_at_us.load(Ordering::Relaxed);
        AckToken::new(
            Origin::Mqtt { connection: self.clone(), index, packet_id, may_be_known },
            bytes,
            received_us,
        )
    }

    /// Takes the packet ids whose PUBACKs may leave now, in order.
    pub fn take_ready(&self, packet_ids: &mut Vec<u16>) {
        self.ledger.lock().take_ready(packet_ids);
        if let Some(session) = &self.session {
            session.acknowledge(packet_ids);
        }
    }

    /// As `take_ready`, each with what its PUBACK is to tell.
    pub fn take_ready_with(&self, mut each: impl FnMut(u16, Option<RefusalNotice>)) {
        let mut packet_ids = Vec::new();
        self.ledger.lock().take_ready_with(|packet_id, told| {
            if self.session.is_some() {
                packet_ids.push(packet_id);
            }
            each(packet_id, told);
        });
        if let Some(session) = &self.session {
            session.acknowledge(&packet_ids);
        }
    }

    /// How the senders of its messages are told of refusals.
    pub fn tells(&self) -> RefusalChannel {
        self.tells
    }

    /// The connection is gone: nothing of it is acknowledged from now on.
    pub fn end(&self) -> usize {
        let mut ledger = self.ledger.lock();
        if let Some(session) = self.session.as_ref().filter(|_| !ledger.has_ended()) {
            session.end(ledger.unacknowledged());
        }
        ledger.end()
    }

    /// Whether nothing of it is acknowledged any more.
    pub fn has_ended(&self) -> bool {
        self.ledger.lock().has_ended()
    }

    /// PUBLISHes of this connection without a PUBACK.
    pub fn outstanding(&self) -> usize {
        self.ledger.lock().outstanding()
    }

    /// Messages of this connection that wait because their tenant's share is full.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Whether the tenant of messages that wait has no room for more of them.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Whether a message of it was let go unsettled while it lived. It is to end, so that the message
    /// comes again: its PUBACK would never come, and none behind it either.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub fn window(&self) -> &Arc<ReceiveWindow> {
        &self.window
    }

    pub(crate) fn lose(&self) {
        if !self.window.stopping.load(Ordering::Acquire) && !self.has_ended() {
            self.lost.store(true, Ordering::Release);
            self.settled.notify_one();
        }
    }

    pub(crate) fn resume(&self) {
        if self.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stalled.store(false, Ordering::Release);
        }
        self.settled.notify_one();
    }
}

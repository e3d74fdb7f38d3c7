//! The acknowledgements of one connection: the source reads PUBACKs here that downstream settles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ack::ledger::{AckLedger, RefusalNotice};
use crate::ack::redelivery::RedeliveryFilter;
use crate::ack::window::ReceiveWindow;

/// The way in which the sender of a refused message can learn the reason.
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

/// The acknowledgements of one connection. Its source receives and sends; everything downstream
/// settles tokens.
#[derive(Debug)]
pub struct AckTracker {
    /// Shared with the session, which ends it when another connection resumes the session.
    pub(super) ledger: Arc<Mutex<AckLedger>>,
    /// Wakes the source's task when PUBACKs may be ready.
    pub settled: Notify,
    pub(super) window: Arc<ReceiveWindow>,
    refusal_channel: RefusalChannel,
    /// The last read from the socket, in microseconds since the window was opened.
    read_at_us: AtomicU64,
    /// Messages that wait for their tenant's share of the spool.
    deferred: AtomicU64,
    /// The tenant of the deferred messages has no room for more of them.
    stalled: AtomicBool,
    /// A token was dropped unsettled.
    lost: AtomicBool,
    is_from_device: bool,
    /// The session that the peer resumes after this connection.
    pub(super) session: Option<Arc<RedeliveryFilter>>,
}

/// The parts of a connection that not every connection has.
#[derive(Debug)]
pub struct AckTrackerBuilder {
    window: Arc<ReceiveWindow>,
    refusal_channel: RefusalChannel,
    session: Option<Arc<RedeliveryFilter>>,
    is_from_device: bool,
}

impl AckTrackerBuilder {
    /// Sets the way in which senders learn of refusals; the default is `Nothing`.
    pub fn refusal_channel(self, refusal_channel: RefusalChannel) -> Self {
        Self { refusal_channel, ..self }
    }

    /// Sets the session; the connection that had it before ends in `build`.
    pub fn session(self, session: Option<Arc<RedeliveryFilter>>) -> Self {
        Self { session, ..self }
    }

    /// Marks the peer as a device that connected to us, not a broker.
    pub fn from_device(self) -> Self {
        Self { is_from_device: true, ..self }
    }

    pub fn build(self) -> Arc<AckTracker> {
        let Self { window, refusal_channel, session, is_from_device } = self;
        let tracker = Arc::new(AckTracker {
            ledger: Arc::default(),
            settled: Notify::new(),
            window,
            refusal_channel,
            read_at_us: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            is_from_device,
            session,
        });
        if let Some(session) = &tracker.session {
            session.begin(&tracker.ledger);
        }
        tracker
    }
}

impl AckTracker {
    /// A connection to a broker without a session, whose senders learn of no refusal.
    pub fn new(window: Arc<ReceiveWindow>) -> Arc<Self> {
        Self::builder(window).build()
    }

    pub fn builder(window: Arc<ReceiveWindow>) -> AckTrackerBuilder {
        AckTrackerBuilder {
            window,
            refusal_channel: RefusalChannel::Nothing,
            session: None,
            is_from_device: false,
        }
    }

    /// Records that the source has read from the socket. Everything received until the next call gets
    /// this time: one reading of the clock serves all messages of a read.
    pub fn record_read(&self) {
        self.read_at_us.store(self.window.now_us(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn read_at_us(&self) -> u64 {
        self.read_at_us.load(Ordering::Relaxed)
    }

    /// Takes the packet ids whose PUBACKs may leave now, in order.
    pub fn take_ready(&self, packet_ids: &mut Vec<u16>) {
        self.ledger.lock().take_ready(packet_ids);
        if let Some(session) = &self.session {
            session.acknowledge(packet_ids);
        }
    }

    /// The same as `take_ready`, each with the reason that its PUBACK carries.
    pub fn take_ready_with(&self, mut each: impl FnMut(u16, Option<RefusalNotice>)) {
        let mut packet_ids = Vec::new();
        self.ledger.lock().take_ready_with(|packet_id, notice| {
            if self.session.is_some() {
                packet_ids.push(packet_id);
            }
            each(packet_id, notice);
        });
        if let Some(session) = &self.session {
            session.acknowledge(&packet_ids);
        }
    }

    /// The way in which the senders of its messages learn of refusals.
    pub fn refusal_channel(&self) -> RefusalChannel {
        self.refusal_channel
    }

    /// Ends the connection: none of its messages is acknowledged from now on. Gives how many were
    /// unsettled.
    pub fn end(&self) -> usize {
        match &self.session {
            Some(session) => session.end(&self.ledger),
            None => self.ledger.lock().end(),
        }
    }

    /// True once none of its messages is acknowledged any more.
    pub fn has_ended(&self) -> bool {
        self.ledger.lock().has_ended()
    }

    /// PUBLISHes of this connection without a PUBACK.
    pub fn outstanding(&self) -> usize {
        self.ledger.lock().outstanding()
    }

    /// Messages of this connection that wait because their tenant's share is full.
    pub fn deferred(&self) -> u64 {
        self.deferred.load(Ordering::Acquire)
    }

    /// True while the tenant of its deferred messages has no room for more of them.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// True once a token was dropped unsettled while the connection lived. The connection is to end, so
    /// that the message is sent again: neither its PUBACK nor any behind it would ever leave.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub fn window(&self) -> &Arc<ReceiveWindow> {
        &self.window
    }

    pub(super) fn is_from_device(&self) -> bool {
        self.is_from_device
    }

    /// Records a token that was dropped unsettled.
    pub(super) fn record_lost(&self) {
        if !self.window.stopping.load(Ordering::Acquire) && !self.has_ended() {
            self.lost.store(true, Ordering::Release);
            self.settled.notify_one();
        }
    }

    /// Counts a message that waits for its tenant's share.
    pub(super) fn defer(&self, stalled: bool) {
        self.deferred.fetch_add(1, Ordering::AcqRel);
        self.stalled.fetch_or(stalled, Ordering::AcqRel);
    }

    /// Ends the wait of one deferred message.
    pub(super) fn resume(&self) {
        if self.deferred.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stalled.store(false, Ordering::Release);
        }
        self.settled.notify_one();
    }
}

//! The writing side of one connection: PUBACKs as they get ready, and answers to packets that were read.
//!
//! Reading and writing are two futures of one task, so that PUBACKs and pings go on while reading
//! waits for room downstream. They meet here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits;
use crate::mqtt::control::encode;
use crate::mqtt::publish::{PeerLimits, puback, puback_with_reason};
use crate::status::{StopSignal, past_deadline};
use tidegate_core::ack::tracker::AckTracker;

/// The reason for which writing ended.
#[derive(Debug, thiserror::Error)]
pub enum WriteEnd {
    /// All that was outstanding is acknowledged, or the deadline came.
    #[error("drained")]
    Drained,
    #[error("{0}")]
    Lost(#[from] std::io::Error),
    #[error("the client has not read its PUBACKs for {} s", limits::SOCKET_WRITE_TIMEOUT_S)]
    SlowReader,
    #[error("no answer to a PINGREQ within the keep-alive")]
    NoPingResponse,
    /// All messages that were settled are acknowledged.
    #[error("a message could not be taken: the connection ends, so that it is sent again")]
    Unsettled,
}

/// The pings with which a client keeps its connection alive.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// A PINGREQ goes out this often.
    pub every: Duration,
    /// The peer is dead when it sent nothing for so long though we were reading.
    pub silence_max: Duration,
}

/// The writing side of one connection, shared with its reading side.
pub struct ConnectionWriter {
    pub tracker: Arc<AckTracker>,
    /// The limits of a peer that gets reasons; None: it gets none, as with MQTT 3.1.1.
    peer_limits: Option<PeerLimits>,
    outbox: Mutex<Vec<u8>>,
    closed: AtomicBool,
    /// Wakes the reading side: PUBACKs have left, or this side is closed.
    reader: Notify,
    draining_until: Mutex<Option<Instant>>,
    /// Messages behind all others that a drain does not wait for: nobody will settle them.
    left_behind: AtomicUsize,
    born: Instant,
    /// Milliseconds after `born` of the last read; -1 while reading is paused.
    last_read_ms: AtomicI64,
}

impl ConnectionWriter {
    pub fn new(tracker: Arc<AckTracker>) -> Self {
        Self::with_peer_limits(tracker, None)
    }

    /// A writer to a peer that may speak MQTT 5.
    pub fn with_peer_limits(tracker: Arc<AckTracker>, peer_limits: Option<PeerLimits>) -> Self {
        Self {
            tracker,
            peer_limits,
            outbox: Mutex::default(),
            closed: AtomicBool::new(false),
            reader: Notify::new(),
            draining_until: Mutex::new(None),
            left_behind: AtomicUsize::new(0),
            born: Instant::now(),
            last_read_ms: AtomicI64::new(0),
        }
    }

    /// Queues a packet that is not a PUBACK; their number is bounded by the packets of one read.
    pub fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.outbox.lock());
        self.tracker.settled.notify_one();
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.lock().len()
    }

    /// Records that the reading side has read something, or begins to wait for it.
    pub fn record_reading(&self) {
        self.last_read_ms.store(self.born.elapsed().as_millis() as i64, Ordering::Relaxed);
    }

    /// Records that the reading side stops for want of room: silence means nothing until it reads again.
    pub fn record_pause(&self) {
        self.last_read_ms.store(-1, Ordering::Relaxed);
    }

    /// The time for which the peer has been silent; zero while we are not reading.
    fn silence(&self) -> Duration {
        match self.last_read_ms.load(Ordering::Relaxed) {
            -1 => Duration::ZERO,
            last => self.born.elapsed().saturating_sub(Duration::from_millis(last as u64)),
        }
    }

    /// Ends writing when all is acknowledged, at `deadline` at the latest; nothing is read any more.
    pub fn drain(&self, deadline: Instant) {
        *self.draining_until.lock() = Some(deadline);
        self.tracker.settled.notify_one();
    }

    /// Awaits `writing` until all but the last `left_behind` messages are acknowledged, or until the deadline of the
    /// order to stop.
    pub async fn drain_until_stopped(
        &self,
        left_behind: usize,
        mut writing: Pin<&mut impl Future<Output = WriteEnd>>,
        stop: StopSignal,
    ) -> WriteEnd {
        self.left_behind.store(left_behind, Ordering::Relaxed);
        self.drain(stop.borrow().unwrap_or_else(Instant::now));
        tokio::select! {
            end = &mut writing => return end,
            () = past_deadline(stop) => {}
        }
        self.drain(Instant::now());
        writing.await
    }

    /// Ends the reading side at its next step.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.reader.notify_one();
    }

    /// Waits until this side is closed.
    pub async fn closed(&self) {
        while !self.closed.load(Ordering::Acquire) {
            self.reader.notified().await;
        }
    }

    /// Waits until `done`, which is checked again after each write, or until this side is closed.
    pub async fn until_written(&self, done: impl Fn() -> bool) {
        while !done() && !self.closed.load(Ordering::Acquire) {
            self.reader.notified().await;
        }
    }

    /// Writes until the connection is lost or drained. Dropping the future in mid-write is fine
    /// only when the connection goes with it.
    pub async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W, ping: Option<KeepAlive>) -> WriteEnd {
        let (mut ids, mut out) = (Vec::new(), Vec::new());
        let mut next_ping = ping.map(|ping| Instant::now() + ping.every);
        loop {
            std::mem::swap(&mut out, &mut *self.outbox.lock());
            match self.peer_limits {
                None => {
                    self.tracker.take_ready(&mut ids);
                    for packet_id in ids.drain(..) {
                        puback(&mut out, packet_id);
                    }
                }
                Some(limits) => self.tracker.take_ready_with(|packet_id, notice| match notice {
                    None => puback(&mut out, packet_id),
                    Some(notice) => puback_with_reason(&mut out, packet_id, &notice, limits),
                }),
            }
            if let (Some(ping), Some(at)) = (ping, next_ping)
                && Instant::now() >= at
            {
                if self.silence() > ping.silence_max {
                    return WriteEnd::NoPingResponse;
                }
                out.extend_from_slice(&encode::PINGREQ);
                next_ping = Some(at.max(Instant::now()) + ping.every);
            }
            if !out.is_empty() {
                let written = timeout(Duration::from_secs(limits::SOCKET_WRITE_TIMEOUT_S), async {
                    writer.write_all(&out).await?;
                    writer.flush().await
                });
                match written.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return WriteEnd::Lost(error),
                    Err(_) => return WriteEnd::SlowReader,
                }
                // An idle connection keeps no buffer.
                if out.capacity() > 512 {
                    (ids, out) = (Vec::new(), Vec::new());
                }
                out.clear();
                self.reader.notify_one();
                continue;
            }
            if self.tracker.has_lost() {
                return WriteEnd::Unsettled;
            }
            let deadline = *self.draining_until.lock();
            if let Some(deadline) = deadline
                && (self.tracker.outstanding() <= self.left_behind.load(Ordering::Relaxed)
                    || Instant::now() >= deadline)
            {
                return WriteEnd::Drained;
            }
            let wake = [deadline, next_ping].into_iter().flatten().min();
            match wake {
                Some(at) => drop(timeout_at(at, self.tracker.settled.notified()).await),
                None => self.tracker.settled.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tidegate_core::ack::tracker::AckTracker;
    use tidegate_core::ack::window::ReceiveWindow;
    use tidegate_core::books::{Account, Outcome};
    use tokio::time::timeout;

    #[tokio::test]
    async fn writing_ends_when_a_message_is_let_go_and_what_was_settled_is_acknowledged() {
        let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(10, 1_000)));
        let writer = ConnectionWriter::new(tracker.clone());
        let account = Account::new("acme".into());
        account.receive(1);
        let (first, second, third) = (tracker.receive(1, 1), tracker.receive(2, 1), tracker.receive(3, 1));
        first.settle(Outcome::Lines, &account);
        drop(second);
        let mut out = Vec::new();
        let end = timeout(Duration::from_secs(60), writer.write(&mut out, None)).await.expect("it ends");
        assert!(matches!(end, WriteEnd::Unsettled));
        assert_eq!(out, [0x40, 2, 0, 1]);
        tracker.end();
        drop(third);
    }
}

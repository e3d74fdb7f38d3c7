//! The slow lane: routes that take too much CPU time a message are decoded on threads of their own,
//! at a lower priority and one message at a time, so that they stand in nobody's way. Guests of the
//! class large are decoded here from their first message on. Tenants take turns: who burns all of his
//! time here keeps others of the lane waiting for one message, not for all of his.
//!
//! - A device's messages stay in order: they go to the lane by way of their decode thread, and as
//!   long as some of a route wait there, what comes after them follows, though the route be fast
//!   again.
//! - A tenant that is over its share of the CPU goes this way too (`shares`), in batches. Of those that
//!   wait, the tenant comes first that has used least of its share.
//! - What waits is held, not dropped: its messages are unsettled. Where too many of a route wait,
//!   the source that brings more of them waits, before it hands them on: a device that is connected
//!   to the listener waits alone; a broker session waits as a whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Notify;

use super::DecodeSink;
use super::decoder::Decoder;
use super::shares::{CpuShares, TenantCpu};
use super::store::GuestStore;
use super::turns::Turns;
use crate::domain::ids::TenantId;
use crate::domain::limits::{
    DECODE_BATCH_MESSAGES_MAX, OVER_SHARE_WAITING_MAX, PACE_MESSAGES, SLOW_ABOVE_US, SLOW_BELOW_US,
    SLOW_WAITING_MAX,
};
use crate::domain::message::{Admitted, Tenant};

/// The moving average of CPU time a message, of one version on one route.
#[derive(Debug, Default)]
pub struct Pace {
    average_ns: AtomicU64,
    slow: AtomicBool,
}

impl Pace {
    pub fn note(&self, messages: u64, cpu: Duration) {
        let sample = cpu.as_nanos() as u64 / messages.max(1);
        let before = self.average_ns.load(Ordering::Relaxed);
        let weight = messages.min(PACE_MESSAGES);
        // Threads that note at the same moment may lose one sample of the two.
        let average = (before * (PACE_MESSAGES - weight) + sample * weight) / PACE_MESSAGES;
        self.average_ns.store(average, Ordering::Relaxed);
        let us = average / 1_000;
        if us > SLOW_ABOVE_US {
            self.slow.store(true, Ordering::Release);
        } else if us < SLOW_BELOW_US && self.is_slow() {
            self.slow.store(false, Ordering::Release);
        }
    }

    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Acquire)
    }
}

/// What waits of one tenant's message type.
#[derive(Debug)]
pub struct SlowRoute {
    waiting: AtomicU64,
    /// By the decode thread that they came from.
    waiting_of: Box<[AtomicU64]>,
    /// Whether it is slow now, or its tenant over its share, or it only has to drain.
    is_slow: AtomicBool,
    /// Whether its guest was of the class large when messages began to wait here; it stays, because
    /// a device's messages must stay on one thread.
    is_large: bool,
    room: Notify,
    cpu: Arc<TenantCpu>,
}

impl SlowRoute {
    pub fn waits_of(&self, thread: usize) -> u64 {
        self.waiting_of[thread].load(Ordering::Acquire)
    }

    pub fn note_pace(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        let most =
            if self.is_slow.load(Ordering::Relaxed) { SLOW_WAITING_MAX } else { OVER_SHARE_WAITING_MAX };
        self.waiting.load(Ordering::Acquire) >= most
    }
}

/// What is told when a message was decoded: its route, and the thread that it came from.
type Done = (Arc<SlowRoute>, usize);

/// A message on its way to the lane.
struct Slow {
    message: Admitted,
    route: Arc<SlowRoute>,
    from: usize,
}

/// What waits for one thread of the lane.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    woken: Condvar,
}

#[derive(Default)]
struct Waiting {
    turns: Turns<TenantId, Slow>,
    /// Nothing more comes.
    closed: bool,
}

impl Queue {
    fn push(&self, slow: Slow) {
        let tenant = slow.message.tenant.id.clone();
        self.waiting.lock().turns.push(&tenant, slow);
        self.woken.notify_one();
    }

    /// The next messages, of the tenant that has used least of its share of the CPU: one of a slow route,
    /// and of another what waits behind it. None once nothing more comes.
    fn next(&self, decoder: &mut Decoder, shares: &CpuShares) -> Option<Vec<Slow>> {
        let mut waiting = self.waiting.lock();
        loop {
            let used = |slow: &Slow| shares.pressure(&slow.route.cpu);
            let next = waiting.turns.next(DECODE_BATCH_MESSAGES_MAX, used, |first, next| {
                Arc::ptr_eq(&first.route, &next.route) && !first.route.is_slow.load(Ordering::Relaxed)
            });
            if !next.is_empty() {
                return Some(next);
            }
            if waiting.closed {
                return None;
            }
            if decoder.keeps_large() {
                self.woken.wait_for(&mut waiting, GIVE_BACK_WITHIN);
                decoder.give_back();
            } else {
                self.woken.wait(&mut waiting);
            }
        }
    }
}

type Types = HashMap<Box<str>, Arc<SlowRoute>>;

/// The lane: its threads, and what waits for them.
pub struct SlowLane {
    queues: Vec<Arc<Queue>>,
    /// So many of them take messages for guests of the class large.
    large: usize,
    pub shares: Arc<CpuShares>,
    /// Decode threads that hand on to it.
    feeders: usize,
    routes: RwLock<HashMap<TenantId, Types>>,
    /// Routes of which many wait; perhaps too many.
    full: AtomicUsize,
}

impl fmt::Debug for SlowLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowLane").field("full", &self.full).finish_non_exhaustive()
    }
}

/// How long an idle thread may keep what another one waits for.
const GIVE_BACK_WITHIN: Duration = Duration::from_millis(20);

/// About a tenth of a core's time where others want it.
const NICE: i32 = 10;

/// Lowers the priority of the calling thread to that of the lane.
pub fn lower_priority() {
    // SAFETY: a call with numbers. On Linux it is about the calling thread alone.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

impl SlowLane {
    /// Starts the lane's threads, as many as there are decode threads; they end with the lane.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start<S>(
        guests: &Arc<GuestStore>,
        shares: &Arc<CpuShares>,
        sink: &Arc<S>,
    ) -> std::io::Result<Arc<Self>>
    where
        S: DecodeSink + Send + Sync + 'static,
    {
        let feeders = guests.settings().threads;
        let queues: Vec<Arc<Queue>> = (0..feeders).map(|_| Arc::default()).collect();
        let large = guests.settings().large.as_ref().map_or(feeders, |large| large.threads(feeders));
        let (routes, full) = (RwLock::default(), AtomicUsize::new(0));
        let lane = Arc::new(Self { queues, large, shares: shares.clone(), feeders, routes, full });
        for (number, queue) in lane.queues.iter().cloned().enumerate() {
            let (guests, sink, lane) = (guests.clone(), sink.clone(), Arc::downgrade(&lane));
            let shares = shares.clone();
            std::thread::Builder::new().name(format!("slow-{number}")).spawn(move || {
                lower_priority();
                let mut decoder = Decoder::new(guests).with_shares(shares.clone());
                while let Some(next) = queue.next(&mut decoder, &shares) {
                    let (messages, done): (Vec<Admitted>, Vec<Done>) =
                        next.into_iter().map(|slow| (slow.message, (slow.route, slow.from))).unzip();
                    decoder.decode(messages, &*sink);
                    decoder.give_back();
                    let Some(lane) = lane.upgrade() else { continue };
                    for (route, from) in done {
                        lane.done(&route, from);
                    }
                }
            })?;
        }
        Ok(lane)
    }

    /// What waits of a tenant's message type.
    pub fn route(&self, tenant: &Arc<Tenant>, message_type: &str, is_large: bool) -> Arc<SlowRoute> {
        let mut routes = self.routes.write();
        // Types are named by whoever publishes; those that nothing waits of are made anew.
        routes.retain(|_, types| {
            types.retain(|_, route| Arc::strong_count(route) > 1);
            !types.is_empty()
        });
        let types = routes.entry(tenant.id.clone()).or_default();
        let new = || {
            Arc::new(SlowRoute {
                waiting: AtomicU64::new(0),
                waiting_of: (0..self.feeders).map(|_| AtomicU64::new(0)).collect(),
                is_slow: AtomicBool::new(true),
                is_large,
                room: Notify::new(),
                cpu: self.shares.of(tenant),
            })
        };
        types.entry(message_type.into()).or_insert_with(new).clone()
    }

    /// Takes messages of one route from a decode thread.
    pub fn send(&self, from: usize, route: &Arc<SlowRoute>, messages: Vec<Admitted>) {
        for message in messages {
            route.waiting_of[from].fetch_add(1, Ordering::AcqRel);
            if route.waiting.fetch_add(1, Ordering::AcqRel) + 1 == SLOW_WAITING_MAX {
                self.full.fetch_add(1, Ordering::AcqRel);
            }
            let threads = if route.is_large { self.large } else { self.queues.len() };
            let thread = (message.device.affinity % threads as u64) as usize;
            self.queues[thread].push(Slow { message, route: route.clone(), from });
        }
    }

    fn done(&self, route: &SlowRoute, from: usize) {
        route.waiting_of[from].fetch_sub(1, Ordering::AcqRel);
        let waited = route.waiting.fetch_sub(1, Ordering::AcqRel);
        if waited == SLOW_WAITING_MAX {
            self.full.fetch_sub(1, Ordering::AcqRel);
        }
        if waited == SLOW_WAITING_MAX || waited >= OVER_SHARE_WAITING_MAX {
            route.room.notify_waiters();
        }
    }

    /// Waits until none of the routes of these messages has too many in the lane.
    pub async fn room(&self, messages: &[Admitted]) {
        if self.full.load(Ordering::Acquire) == 0 {
            return;
        }
        for message in messages {
            let route = {
                let routes = self.routes.read();
                routes.get(&message.tenant.id).and_then(|types| types.get(message.message_type())).cloned()
            };
            let Some(route) = route else { continue };
            loop {
                let notified = route.room.notified();
                if !route.is_full() {
                    break;
                }
                notified.await;
            }
        }
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.waiting.lock().closed = true;
            queue.woken.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_slow_by_its_average_and_fast_again_below_half_of_it() {
        let pace = Pace::default();
        pace.note(1, Duration::from_millis(10));
        assert!(!pace.is_slow(), "one slow message is no slow route");
        pace.note(1, Duration::from_millis(10));
        assert!(pace.is_slow());
        pace.note(16, Duration::from_micros(16 * 700));
        assert!(pace.is_slow(), "not before it is below half");
        pace.note(16, Duration::from_micros(16 * 400));
        assert!(!pace.is_slow());
    }
}

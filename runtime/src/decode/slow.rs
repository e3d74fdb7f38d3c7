//! The slow lane: routes that take too much CPU time a message are decoded on threads of their own,
//! at a lower priority and one message at a time, so that they stand in nobody's way.
//!
//! - A device's messages stay in order: they go to the lane by way of their decode thread, and as
//!   long as some of a route wait there, what comes after them follows, though the route be fast
//!   again.
//! - A tenant that is over its share of the CPU goes this way too (`shares`), in batches. Of those that
//!   wait, the tenant comes first that has used least of its share.
//! - What waits is held, not dropped: its messages are unsettled. Where too many of a route wait,
//!   the source that brings more of them waits, before it hands them on: a device that is connected
//!   to the listener waits alone; a broker session waits as a whole.

use std::collections::{HashMap, VecDeque};
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
use crate::domain::ids::TenantId;
use crate::domain::limits::{
    DECODE_BATCH_MESSAGES_MAX, OVER_SHARE_WAITING_MAX, PACE_MESSAGES, SLOW_ABOVE_US, SLOW_BELOW_US,
    SLOW_WAITING_MAX,
};
use crate::domain::message::Admitted;

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

type Types = HashMap<Box<str>, Arc<SlowRoute>>;

/// What waits for one thread of the lane, a tenant.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// None is empty.
    tenants: HashMap<TenantId, VecDeque<Slow>>,
    closed: bool,
}

/// The lane: its threads, and what waits for them.
pub struct SlowLane {
    queues: Vec<Arc<Queue>>,
    pub shares: Arc<CpuShares>,
    /// Decode threads that hand on to it.
    feeders: usize,
    routes: RwLock<HashMap<TenantId, Types>>,
    /// Routes of which many wait; perhaps too many.
    full: AtomicUsize,
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.waiting.lock().closed = true;
            queue.more.notify_one();
        }
    }
}

impl fmt::Debug for SlowLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowLane").field("full", &self.full).finish_non_exhaustive()
    }
}

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
        let lane = Arc::new(Self {
            queues: queues.clone(),
            shares: shares.clone(),
            feeders,
            routes: RwLock::default(),
            full: AtomicUsize::new(0),
        });
        for (number, queue) in queues.into_iter().enumerate() {
            let (guests, sink, lane) = (guests.clone(), sink.clone(), Arc::downgrade(&lane));
            let shares = shares.clone();
            std::thread::Builder::new().name(format!("slow-{number}")).spawn(move || {
                lower_priority();
                let mut decoder = Decoder::new(guests).with_shares(shares.clone());
                while let Some((messages, done)) = queue.next(&shares) {
                    decoder.decode(messages, &*sink);
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
    pub fn route(&self, tenant: &TenantId, message_type: &str) -> Arc<SlowRoute> {
        let mut routes = self.routes.write();
        // Types are named by whoever publishes; those that nothing waits of are made anew.
        routes.retain(|_, types| {
            types.retain(|_, route| Arc::strong_count(route) > 1);
            !types.is_empty()
        });
        let types = routes.entry(tenant.clone()).or_default();
        let new = || {
            Arc::new(SlowRoute {
                waiting: AtomicU64::new(0),
                waiting_of: (0..self.feeders).map(|_| AtomicU64::new(0)).collect(),
                is_slow: AtomicBool::new(true),
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
            let thread = (message.device.affinity % self.queues.len() as u64) as usize;
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

impl Queue {
    fn push(&self, slow: Slow) {
        let mut waiting = self.waiting.lock();
        match waiting.tenants.get_mut(&slow.message.tenant.id) {
            Some(own) => own.push_back(slow),
            None => _ = waiting.tenants.insert(slow.message.tenant.id.clone(), VecDeque::from([slow])),
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// The next messages, and what is done with them: of the tenant that has used least of its share,
    /// one of a slow route, or what waits of one that is not. `None`: the lane has ended.
    fn next(&self, shares: &CpuShares) -> Option<(Vec<Admitted>, Vec<Done>)> {
        let mut waiting = self.waiting.lock();
        while waiting.tenants.is_empty() {
            if waiting.closed {
                return None;
            }
            self.more.wait(&mut waiting);
        }
        let tenant = match waiting.tenants.len() {
            1 => waiting.tenants.keys().next().cloned()?,
            _ => {
                let pressure =
                    |own: &VecDeque<Slow>| own.front().map(|slow| shares.pressure(&slow.route.cpu));
                let by_pressure = waiting.tenants.iter().map(|(tenant, own)| (tenant, pressure(own)));
                by_pressure
                    .min_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal))?
                    .0
                    .clone()
            }
        };
        let own = waiting.tenants.get_mut(&tenant)?;
        let (mut messages, mut done) = (Vec::new(), Vec::new());
        while let Some(slow) = own.pop_front() {
            let is_slow = slow.route.is_slow.load(Ordering::Relaxed);
            messages.push(slow.message);
            done.push((slow.route, slow.from));
            let next_is_slow = own.front().is_some_and(|next| next.route.is_slow.load(Ordering::Relaxed));
            if is_slow || next_is_slow || messages.len() == DECODE_BATCH_MESSAGES_MAX {
                break;
            }
        }
        if own.is_empty() {
            waiting.tenants.remove(&tenant);
        }
        Some((messages, done))
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

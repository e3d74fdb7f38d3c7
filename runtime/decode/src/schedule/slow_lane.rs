//! The slow lane: routes that take too much CPU time a message are decoded on threads of their own, at
//! a lower priority and one message at a time, so that they delay no others. Guests of the class large
//! are decoded here from their first message on. Tenants take turns: a tenant that burns all of its
//! time here delays others of the lane by one message, not by all of its own.
//!
//! - A device's messages stay in order: they come to the lane by their decode thread. As long as some
//!   of a route wait there, later ones follow them, even if the route is fast again.
//! - Messages of a tenant that is over its CPU quota come here too (`cpu_quota`), in batches. A turn is charged
//!   to its tenant in CPU time, by the tenant's share (`fair_queue`).
//! - Messages that wait are not dropped: they are unsettled. If too many of a route wait, the source of
//!   more of them waits before it submits them. A device that is connected to the listener waits alone;
//!   a broker session waits as a whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Notify;

use crate::limits::{DECODE_BATCH_MESSAGES_MAX, OVER_SHARE_WAITING_MAX, SLOW_WAITING_MAX};
use crate::schedule::cpu_quota::CpuQuotas;
use crate::schedule::fair_queue::FairQueue;
use crate::schedule::placement::BucketId;
use tidegate_core::ids::TenantId;
use tidegate_core::message::Admitted;
use tidegate_core::tenant::Tenant;

/// The messages of one tenant's message type that wait.
#[derive(Debug)]
pub struct SlowRoute {
    bucket: BucketId,
    waiting: AtomicU64,
    /// By the decode thread that they came from.
    waiting_of: Box<[AtomicU64]>,
    /// True while the route is slow; otherwise its tenant is over its share, or it only has to drain.
    is_slow: AtomicBool,
    /// True if its guest was of the class large when messages began to wait here; it stays, because
    /// a device's messages must stay on one thread.
    is_large: bool,
    room: Notify,
}

impl SlowRoute {
    pub fn waits_of(&self, thread: usize) -> u64 {
        self.waiting_of[thread].load(Ordering::Acquire)
    }

    pub fn set_slow(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        let most =
            if self.is_slow.load(Ordering::Relaxed) { SLOW_WAITING_MAX } else { OVER_SHARE_WAITING_MAX };
        self.waiting.load(Ordering::Acquire) >= most
    }
}

/// The origin of a decoded message: its route, and the thread that it came from.
pub type DecodedFrom = (Arc<SlowRoute>, usize);

/// A message on its way to the lane.
pub struct SlowMessage {
    message: Admitted,
    route: Arc<SlowRoute>,
    from: usize,
}

impl SlowMessage {
    /// The message, and its origin for `SlowLane::done`.
    pub fn split(self) -> (Admitted, DecodedFrom) {
        (self.message, (self.route, self.from))
    }
}

/// The messages that wait for one thread of the lane.
#[derive(Default)]
pub struct LaneQueue {
    waiting: Mutex<LaneWaiting>,
    woken: Condvar,
}

#[derive(Default)]
struct LaneWaiting {
    queue: FairQueue<TenantId, SlowMessage>,
    /// Nothing more comes.
    closed: bool,
}

impl LaneQueue {
    fn push(&self, slow: SlowMessage) {
        let tenant = slow.message.tenant.id.clone();
        self.waiting.lock().queue.push(&tenant, slow);
        self.woken.notify_one();
    }

    /// Begins a turn: messages of the tenant that is next, one of a slow route, or of another route all that
    /// wait in a row. Empty if none came within `patience`; None once the lane is closed.
    pub fn next(&self, patience: Option<Duration>) -> Option<Vec<SlowMessage>> {
        let mut waiting = self.waiting.lock();
        let mut woken_in_vain = false;
        loop {
            let next = waiting.queue.next(DECODE_BATCH_MESSAGES_MAX, |first, next| {
                Arc::ptr_eq(&first.route, &next.route) && !first.route.is_slow.load(Ordering::Relaxed)
            });
            if !next.is_empty() || woken_in_vain {
                return Some(next);
            }
            if waiting.closed {
                return None;
            }
            match patience {
                Some(patience) => woken_in_vain = self.woken.wait_for(&mut waiting, patience).timed_out(),
                None => self.woken.wait(&mut waiting),
            }
        }
    }

    /// Ends the turn, which took so much CPU time of a tenant with this weight.
    pub fn charge(&self, cpu: Duration, weight: f64) {
        self.waiting.lock().queue.charge(cpu, weight);
    }
}

type SlowRoutes = HashMap<Box<str>, Arc<SlowRoute>>;

/// The lane: the queues of its threads, and the routes that it knows.
pub struct SlowLane {
    pub queues: Vec<Arc<LaneQueue>>,
    /// The number of them that take messages for guests of the class large.
    large: usize,
    pub quotas: Arc<CpuQuotas>,
    /// Decode threads that send to it.
    feeders: usize,
    routes: RwLock<HashMap<TenantId, SlowRoutes>>,
    /// Routes with many messages that wait; perhaps too many.
    full: AtomicUsize,
}

impl fmt::Debug for SlowLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowLane").field("full", &self.full).finish_non_exhaustive()
    }
}

impl SlowLane {
    /// A lane of so many threads, which are yet to be started, for as many decode threads. `large` of
    /// them decode for guests of the class large.
    pub fn new(threads: usize, large: usize, quotas: &Arc<CpuQuotas>) -> Arc<Self> {
        let queues = (0..threads).map(|_| Arc::default()).collect();
        let (routes, full) = (RwLock::default(), AtomicUsize::new(0));
        Arc::new(Self { queues, large, quotas: quotas.clone(), feeders: threads, routes, full })
    }

    /// The slow route of a tenant's message type.
    pub fn route(&self, tenant: &Arc<Tenant>, message_type: &str, is_large: bool) -> Arc<SlowRoute> {
        let mut routes = self.routes.write();
        // Publishers choose the types' names, so routes without waiting messages are dropped.
        routes.retain(|_, types| {
            types.retain(|_, route| Arc::strong_count(route) > 1);
            !types.is_empty()
        });
        let types = routes.entry(tenant.id.clone()).or_default();
        let new = || {
            Arc::new(SlowRoute {
                bucket: self.quotas.placements.bucket(&tenant.id),
                waiting: AtomicU64::new(0),
                waiting_of: (0..self.feeders).map(|_| AtomicU64::new(0)).collect(),
                is_slow: AtomicBool::new(true),
                is_large,
                room: Notify::new(),
            })
        };
        types.entry(message_type.into()).or_insert_with(new).clone()
    }

    /// Takes messages of one route from a decode thread.
    pub fn send(&self, from: usize, route: &Arc<SlowRoute>, messages: Vec<Admitted>) {
        self.quotas.placements.enter_lane(route.bucket, messages.len() as u32);
        for message in messages {
            route.waiting_of[from].fetch_add(1, Ordering::AcqRel);
            if route.waiting.fetch_add(1, Ordering::AcqRel) + 1 == SLOW_WAITING_MAX {
                self.full.fetch_add(1, Ordering::AcqRel);
            }
            let threads = if route.is_large { self.large } else { self.queues.len() };
            let thread = message.device.affinity.part_of(threads);
            self.queues[thread].push(SlowMessage { message, route: route.clone(), from });
        }
    }

    /// A message was decoded.
    pub fn done(&self, (route, from): &DecodedFrom) {
        route.waiting_of[*from].fetch_sub(1, Ordering::AcqRel);
        self.quotas.placements.leave_lane(route.bucket, 1);
        let waited = route.waiting.fetch_sub(1, Ordering::AcqRel);
        if waited == SLOW_WAITING_MAX {
            self.full.fetch_sub(1, Ordering::AcqRel);
        }
        if waited == SLOW_WAITING_MAX || waited >= OVER_SHARE_WAITING_MAX {
            route.room.notify_waiters();
        }
    }

    /// Waits until none of the routes of these messages has too many in the lane.
    pub async fn until_not_full(&self, messages: &[Admitted]) {
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

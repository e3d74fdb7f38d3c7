//! The placement of tenants on decode threads.
//!
//! Each decode thread that meets a tenant has an instance of its decoder, so a tenant's messages go to one thread, its
//! home. A tenant that uses more than a sixteenth of a thread needs more than a part of one: its devices are spread
//! over all threads. It comes home when it uses a quarter of that.
//!
//! - A device's messages stay in order: a tenant moves while none of its messages is in work, on a decode thread or
//!   in the slow lane. New ones wait for that, for a moment: after it the move is given up for some time.
//! - Tenants are counted in buckets, by a hash with a seed of this process: names take no memory. Tenants of one
//!   bucket move together, which costs instances and nothing else.

use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::limits::{
    HOME_BELOW_PERCENT, MOVE_AGAIN_MS, MOVE_WAIT_MS, PLACEMENT_BUCKETS, PLACEMENT_WINDOW_MS,
    SPREAD_ABOVE_PERCENT,
};
use tidegate_core::ids::TenantId;

/// The bucket of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketId(u32);

/// The threads that a tenant's devices go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// All to this one.
    Home(usize),
    /// Each to one by its hash.
    Spread,
}

/// The state of a bucket in one word: messages in work in the lower half, and two flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BucketState(u64);

impl BucketState {
    const SPREAD: u64 = 1 << 32;
    /// It moves as soon as no message is in work.
    const MOVES: u64 = 1 << 33;

    fn in_work(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }

    fn is_spread(self) -> bool {
        self.0 & Self::SPREAD != 0
    }

    fn moves(self) -> bool {
        self.0 & Self::MOVES != 0
    }

    fn entered(self, messages: u32) -> Self {
        Self(self.0 + u64::from(messages))
    }

    fn left(self, messages: u32) -> Self {
        Self(self.0 - u64::from(messages)).settled()
    }

    fn wanting(self, spread: bool) -> Self {
        match spread == self.is_spread() {
            true => Self(self.0 & !Self::MOVES),
            false => Self(self.0 | Self::MOVES).settled(),
        }
    }

    fn settled(self) -> Self {
        match self.moves() && self.in_work() == 0 {
            true => Self((self.0 & !Self::MOVES) ^ Self::SPREAD),
            false => self,
        }
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    state: AtomicU64,
    /// Messages of `state` that are in the slow lane.
    in_lane: AtomicU32,
    /// CPU time since the last judgement, and when that was, in milliseconds of `Placements::began`.
    cpu_ns: AtomicU64,
    judged_ms: AtomicU64,
}

impl Bucket {
    /// Changes the state; gives it before and after.
    fn change(&self, next: impl Fn(BucketState) -> BucketState) -> (BucketState, BucketState) {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let (before, after) = (BucketState(state), next(BucketState(state)));
            match self.state.compare_exchange_weak(state, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (before, after),
                Err(present) => state = present,
            }
        }
    }
}

/// The placement of all tenants.
#[derive(Debug)]
pub struct Placements {
    threads: usize,
    hasher: foldhash::fast::RandomState,
    /// Empty for a single thread: there is nothing to place.
    buckets: Box<[Bucket]>,
    began: Instant,
    moved: Notify,
}

impl Placements {
    pub fn new(threads: usize) -> Self {
        let buckets = if threads > 1 { PLACEMENT_BUCKETS } else { 0 };
        Self {
            threads,
            hasher: foldhash::fast::RandomState::default(),
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            began: Instant::now(),
            moved: Notify::new(),
        }
    }

    pub fn bucket(&self, tenant: &TenantId) -> BucketId {
        BucketId((self.hasher.hash_one(tenant.as_str()) % PLACEMENT_BUCKETS as u64) as u32)
    }

    fn get(&self, id: BucketId) -> Option<&Bucket> {
        self.buckets.get(id.0 as usize)
    }

    fn placing(&self, id: BucketId, state: BucketState) -> Placing {
        match state.is_spread() {
            true => Placing::Spread,
            false => Placing::Home(id.0 as usize % self.threads),
        }
    }

    /// Enters messages of a bucket into work, and gives the place for them. Waits while the bucket moves, unless
    /// the caller `holds` messages of the same bucket, which keep it from moving.
    pub async fn enter(&self, id: BucketId, messages: u32, holds: bool) -> Placing {
        let Some(bucket) = self.get(id) else { return Placing::Home(0) };
        let mut deadline = None;
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            let (before, _) = bucket.change(|state| match state.moves() && !holds {
                true => state,
                false => state.entered(messages),
            });
            if !before.moves() || holds {
                return self.placing(id, before);
            }
            let wait = Duration::from_millis(MOVE_WAIT_MS);
            let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + wait);
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                self.give_up(bucket);
            }
        }
    }

    /// Stays where it is, for some time.
    fn give_up(&self, bucket: &Bucket) {
        bucket.judged_ms.store(self.now_ms() + MOVE_AGAIN_MS, Ordering::Relaxed);
        bucket.change(|state| state.wanting(state.is_spread()));
        self.moved.notify_waiters();
    }

    /// Messages of a bucket are done.
    pub fn leave(&self, id: BucketId, messages: u32) {
        let Some(bucket) = self.get(id) else { return };
        let (before, after) = bucket.change(|state| state.left(messages));
        if before.moves() && !after.moves() {
            self.moved.notify_waiters();
        }
    }

    /// Messages in work go on to the slow lane.
    pub fn enter_lane(&self, id: BucketId, messages: u32) {
        let Some(bucket) = self.get(id) else { return };
        bucket.in_lane.fetch_add(messages, Ordering::AcqRel);
        bucket.change(|state| state.entered(messages));
    }

    /// Messages of the slow lane are done.
    pub fn leave_lane(&self, id: BucketId, messages: u32) {
        let Some(bucket) = self.get(id) else { return };
        bucket.in_lane.fetch_sub(messages, Ordering::AcqRel);
        self.leave(id, messages);
    }

    /// Guests used CPU time for messages of a bucket.
    pub fn record(&self, id: BucketId, used: Duration) {
        self.record_at(self.now_ms(), id, used);
    }

    fn record_at(&self, now_ms: u64, id: BucketId, used: Duration) {
        let Some(bucket) = self.get(id) else { return };
        bucket.cpu_ns.fetch_add(used.as_nanos() as u64, Ordering::Relaxed);
        let judged_ms = bucket.judged_ms.load(Ordering::Relaxed);
        let age_ms = now_ms.saturating_sub(judged_ms);
        if age_ms < PLACEMENT_WINDOW_MS
            || bucket
                .judged_ms
                .compare_exchange(judged_ms, now_ms, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let cpu_ns = bucket.cpu_ns.swap(0, Ordering::Relaxed);
        // The lane spreads devices itself, and holds messages for long.
        if bucket.in_lane.load(Ordering::Acquire) > 0 {
            return;
        }
        let percent = cpu_ns / 10_000 / age_ms;
        if percent >= SPREAD_ABOVE_PERCENT {
            self.want(bucket, true);
        } else if percent < HOME_BELOW_PERCENT {
            self.want(bucket, false);
        }
    }

    fn want(&self, bucket: &Bucket, spread: bool) {
        let (before, after) = bucket.change(|state| state.wanting(spread));
        if before.moves() && !after.moves() {
            self.moved.notify_waiters();
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::{Context, Poll, Waker};

    const WINDOW: u64 = PLACEMENT_WINDOW_MS;

    /// The place for messages that enter now; `None` if they have to wait.
    fn enter(placements: &Placements, id: BucketId, messages: u32, holds: bool) -> Option<Placing> {
        let entering = pin!(placements.enter(id, messages, holds));
        match entering.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(placing) => Some(placing),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_tenant_that_needs_more_than_a_part_of_a_thread_is_spread_and_comes_home_again() {
        let placements = Placements::new(2);
        let (busy, quiet) = (BucketId(7), BucketId(8));
        assert_eq!(enter(&placements, busy, 5, false), Some(Placing::Home(1)));
        assert_eq!(enter(&placements, quiet, 1, false), Some(Placing::Home(0)));
        placements.record_at(WINDOW, quiet, Duration::from_millis(WINDOW / 100));
        placements.record_at(WINDOW, busy, Duration::from_millis(WINDOW / 10));
        // Its messages in work are to be done first.
        assert_eq!(enter(&placements, busy, 1, false), None);
        assert_eq!(enter(&placements, busy, 1, true), Some(Placing::Home(1)));
        assert_eq!(enter(&placements, quiet, 1, false), Some(Placing::Home(0)));
        placements.leave(busy, 5);
        assert_eq!(enter(&placements, busy, 1, false), None);
        placements.leave(busy, 1);
        assert_eq!(enter(&placements, busy, 1, false), Some(Placing::Spread));
        placements.leave(busy, 1);
        placements.record_at(2 * WINDOW, busy, Duration::from_millis(WINDOW / 25));
        assert_eq!(enter(&placements, busy, 1, false), Some(Placing::Spread), "it may waver");
        placements.leave(busy, 1);
        placements.record_at(3 * WINDOW, busy, Duration::from_millis(WINDOW / 100));
        assert_eq!(enter(&placements, busy, 1, false), Some(Placing::Home(1)));
    }

    #[tokio::test]
    async fn what_waits_goes_on_when_the_tenant_has_moved() {
        let placements = std::sync::Arc::new(Placements::new(2));
        let busy = BucketId(7);
        placements.enter(busy, 1, false).await;
        placements.record_at(WINDOW, busy, Duration::from_millis(WINDOW));
        let waiting = tokio::spawn({
            let placements = placements.clone();
            async move { placements.enter(busy, 1, false).await }
        });
        tokio::task::yield_now().await;
        placements.leave(busy, 1);
        assert_eq!(waiting.await.unwrap(), Placing::Spread);
    }

    #[tokio::test]
    async fn a_move_that_takes_long_is_given_up_for_some_time() {
        let placements = Placements::new(2);
        let busy = BucketId(7);
        placements.enter(busy, 1, false).await;
        placements.record_at(WINDOW, busy, Duration::from_millis(WINDOW));
        assert_eq!(placements.enter(busy, 1, false).await, Placing::Home(1));
        placements.record_at(2 * WINDOW, busy, Duration::from_millis(WINDOW));
        assert_eq!(enter(&placements, busy, 1, false), Some(Placing::Home(1)));
    }

    #[tokio::test]
    async fn a_tenant_with_messages_in_the_slow_lane_stays() {
        let placements = Placements::new(2);
        let busy = BucketId(7);
        placements.enter(busy, 1, false).await;
        placements.enter_lane(busy, 1);
        placements.leave(busy, 1);
        placements.record_at(WINDOW, busy, Duration::from_millis(WINDOW));
        assert_eq!(enter(&placements, busy, 1, false), Some(Placing::Home(1)));
        placements.leave(busy, 1);
        placements.leave_lane(busy, 1);
        placements.record_at(2 * WINDOW, busy, Duration::from_millis(WINDOW));
        assert_eq!(enter(&placements, busy, 1, false), Some(Placing::Spread));
    }

    #[test]
    fn a_single_thread_has_nothing_to_place() {
        let placements = Placements::new(1);
        let tenant = placements.bucket(&"acme".into());
        assert_eq!(enter(&placements, tenant, 1, false), Some(Placing::Home(0)));
        placements.record_at(WINDOW, tenant, Duration::from_millis(WINDOW));
        placements.leave(tenant, 1);
        assert_eq!(enter(&placements, tenant, 1, false), Some(Placing::Home(0)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter,
        Leave,
        Want(bool),
    }

    proptest! {
        #[test]
        fn a_bucket_never_moves_while_a_message_is_in_work(
            steps in prop::collection::vec(
                prop_oneof![Just(Step::Enter), Just(Step::Leave), any::<bool>().prop_map(Step::Want)],
                1..200,
            ),
        ) {
            let (mut state, mut in_work) = (BucketState(0), 0);
            for step in steps {
                let before = state;
                match step {
                    // Who does not hold a message waits while the bucket moves.
                    Step::Enter if !state.moves() => (state, in_work) = (state.entered(1), in_work + 1),
                    Step::Leave if in_work > 0 => (state, in_work) = (state.left(1), in_work - 1),
                    Step::Want(spread) => state = state.wanting(spread),
                    _ => {}
                }
                prop_assert_eq!(state.in_work(), in_work);
                prop_assert!(state.is_spread() == before.is_spread() || in_work == 0);
                prop_assert!(!(state.moves() && in_work == 0), "nothing would end the move");
            }
        }
    }
}

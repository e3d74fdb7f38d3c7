//! The token buckets of all devices, or of all tenants. Their number is bounded; idle ones are dropped.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::limits::{BACKLOG_GRANT_S, BUCKET_SWEEP_S, BUCKETS_MAX, RATE_WAIT_STEP_S};
use tidegate_core::token_bucket::{Rate, TokenBucket};

#[derive(Debug)]
struct DeviceBuckets {
    /// The bucket of messages that pass every check.
    passed: TokenBucket,
    /// The bucket of messages that are refused.
    refused: TokenBucket,
    /// The number of the last grant that this device has received.
    grant: u64,
    /// The rate at its last use.
    rate: Rate,
}

/// The last time offline for which backlogs are granted.
#[derive(Clone, Copy, Debug, Default)]
struct BacklogGrant {
    seconds: f64,
    ended_s: f64,
}

/// The buckets, by a hash of tenant and device, or of the tenant. Two with the same hash share a rate.
#[derive(Debug, Default)]
pub struct DeviceRateLimits {
    devices: DashMap<u64, DeviceBuckets, foldhash::fast::RandomState>,
    grants: AtomicU64,
    last_grant: Mutex<BacklogGrant>,
    swept_at_s: Mutex<f64>,
}

impl DeviceRateLimits {
    fn with<T>(&self, key: u64, rate: Rate, now_s: f64, act: impl FnOnce(&mut DeviceBuckets) -> T) -> T {
        let grants = self.grants.load(Ordering::Acquire);
        if let Some(mut known) = self.devices.get_mut(&key) {
            if known.grant != grants {
                self.grant(&mut known, rate, grants, now_s);
            }
            known.rate = rate;
            return act(&mut known);
        }
        self.sweep(now_s);
        let mut fresh = DeviceBuckets {
            passed: TokenBucket::full(rate, now_s),
            refused: TokenBucket::full(rate, now_s),
            grant: 0,
            rate,
        };
        if grants != 0 {
            self.grant(&mut fresh, rate, grants, now_s);
        }
        act(&mut self.devices.entry(key).or_insert(fresh))
    }

    fn grant(&self, known: &mut DeviceBuckets, rate: Rate, grants: u64, now_s: f64) {
        known.grant = grants;
        let grant = *self.last_grant.lock();
        if now_s - grant.ended_s <= grant.seconds + BACKLOG_GRANT_S {
            known.passed.grant_backlog(grant.seconds * rate.per_s);
        }
    }

    /// Takes a token for a message that will probably pass. False if there is none.
    pub fn take(&self, key: u64, rate: Rate, now_s: f64) -> bool {
        self.with(key, rate, now_s, |known| known.passed.take(rate, now_s))
    }

    /// Takes a token that may not be there.
    pub fn owe(&self, key: u64, rate: Rate, now_s: f64) {
        self.with(key, rate, now_s, |known| known.passed.owe(rate, now_s));
    }

    /// Seconds to wait until a message can take a token; infinite if none ever can.
    pub fn wait_s(&self, key: u64, rate: Rate, now_s: f64) -> f64 {
        let tokens = 1.0 + rate.per_s * RATE_WAIT_STEP_S;
        self.with(key, rate, now_s, |known| known.passed.wait_s(rate, tokens))
    }

    /// Releases the token of a message that did not pass, and takes one from the bucket of refused
    /// messages. False if that one is empty.
    pub fn refuse(&self, key: u64, rate: Rate, now_s: f64) -> bool {
        self.with(key, rate, now_s, |known| {
            known.passed.release(rate);
            known.refused.take(rate, now_s)
        })
    }

    /// Releases the token of a message that another limit has stopped.
    pub fn release(&self, key: u64, rate: Rate, now_s: f64) {
        self.with(key, rate, now_s, |known| known.passed.release(rate));
    }

    /// Raises each bucket once for a time offline that ends now: the backlog is no burst.
    pub fn grant_backlog(&self, seconds: f64, now_s: f64) {
        *self.last_grant.lock() = BacklogGrant { seconds, ended_s: now_s };
        self.grants.fetch_add(1, Ordering::AcqRel);
    }

    /// Drops buckets that are full again, which changes nothing. If strangers have filled the table
    /// with others, all are dropped: a bucket is worth less than the memory.
    fn sweep(&self, now_s: f64) {
        if self.devices.len() < BUCKETS_MAX {
            return;
        }
        let mut swept_at_s = self.swept_at_s.lock();
        if now_s - *swept_at_s >= BUCKET_SWEEP_S {
            *swept_at_s = now_s;
            self.devices.retain(|_, known| {
                !(known.passed.is_full(known.rate, now_s) && known.refused.is_full(known.rate, now_s))
            });
        }
        if self.devices.len() >= BUCKETS_MAX {
            self.devices.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::token_bucket::Rate;

    const RATE: Rate = Rate { per_s: 1.0, burst: 3.0 };

    #[test]
    fn refused_messages_leave_the_devices_own_bucket_alone() {
        let buckets = DeviceRateLimits::default();
        for _ in 0..3 {
            assert!(buckets.take(1, RATE, 0.0) && buckets.refuse(1, RATE, 0.0));
        }
        assert!(buckets.take(1, RATE, 0.0), "the device itself is not silenced");
        assert!(!buckets.refuse(1, RATE, 0.0), "the stranger is");
        assert!((0..3).all(|_| buckets.take(1, RATE, 0.0)));
        assert!(!buckets.take(1, RATE, 0.0));
    }

    #[test]
    fn an_absence_is_granted_once_to_each_device() {
        let buckets = DeviceRateLimits::default();
        assert!(buckets.take(1, RATE, 0.0));
        buckets.grant_backlog(10.0, 0.0);
        assert_eq!((0..50).filter(|_| buckets.take(1, RATE, 0.0)).count(), 2 + 10);
        assert_eq!((0..50).filter(|_| buckets.take(2, RATE, 0.0)).count(), 3 + 10);
        assert!(!buckets.take(1, RATE, 0.0));
        // A device that comes long after the reconnect has no backlog.
        assert_eq!((0..50).filter(|_| buckets.take(3, RATE, 1_000.0)).count(), 3);
    }
}

//! A device as the registry knows it, and the messages that were seen of it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::device_hash::DeviceHash;
use crate::ids::DeviceId;
use crate::line_protocol::identity::identity_tags;

/// A device with its identity in the registry.
#[derive(Debug)]
pub struct Device {
    pub id: DeviceId,
    /// Empty if the registry knows none.
    pub site: String,
    /// `,device_id=…[,site_id=…]`, escaped, ready to stand behind a measurement. `Err` names the
    /// fault of an identity that line protocol cannot carry.
    pub identity_tags: Result<Box<[u8]>, String>,
    /// Its messages stay on one decode thread, in order.
    pub affinity: DeviceHash,
    pub activity: DeviceActivity,
}

const NS_A_MINUTE: u64 = 60_000_000_000;

/// Bits of the two counts of messages in `DeviceActivity::minutes`.
const COUNT_BITS: u32 = 20;

const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Bits of a minute in `DeviceActivity::minutes`: it comes round after 31 years.
const MINUTE_BITS: u32 = u64::BITS - 2 * COUNT_BITS;

fn minute_of(ns: u64) -> u64 {
    (ns / NS_A_MINUTE) & ((1 << MINUTE_BITS) - 1)
}

/// The admitted messages of a device. Plain stores without a lock: a message that two connections of one device
/// send at one time may be missing in the counts.
#[derive(Debug, Default)]
pub struct DeviceActivity {
    messages: AtomicU64,
    /// Nanoseconds since the epoch; 0: none was seen.
    last_ns: AtomicU64,
    /// The minute of the last message, its messages so far, and those of the minute before, in one number.
    minutes: AtomicU64,
}

/// The messages of a device up to one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSighting {
    /// Messages since the device is in the cache.
    pub messages: u64,
    /// The time of receipt of the last one, in nanoseconds since the epoch.
    pub last_ns: i64,
    /// Messages in the last whole minute.
    pub last_minute: u64,
}

impl DeviceActivity {
    /// Counts a message by its time of receipt. One that waited changes no rate.
    #[inline]
    pub fn record(&self, received_ns: i64) {
        let now_ns = received_ns.unsigned_abs();
        self.messages.store(self.messages.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if now_ns < self.last_ns.load(Ordering::Relaxed) {
            return;
        }
        self.last_ns.store(now_ns, Ordering::Relaxed);
        let (minute, count, before) = self.minutes();
        let now = minute_of(now_ns);
        let (count, before) = match now.wrapping_sub(minute) {
            0 => ((count + 1).min(COUNT_MAX), before),
            1 => (1, count),
            _ => (1, 0),
        };
        self.minutes.store((now << (2 * COUNT_BITS)) | (count << COUNT_BITS) | before, Ordering::Relaxed);
    }

    /// The last minute with a message, its messages, and those of the minute before it.
    #[inline]
    fn minutes(&self) -> (u64, u64, u64) {
        let packed = self.minutes.load(Ordering::Relaxed);
        (packed >> (2 * COUNT_BITS), (packed >> COUNT_BITS) & COUNT_MAX, packed & COUNT_MAX)
    }

    /// The messages up to `now_ns`; `None` before the first one.
    pub fn sighting(&self, now_ns: i64) -> Option<DeviceSighting> {
        let messages = self.messages.load(Ordering::Relaxed);
        let (minute, count, before) = self.minutes();
        let now = minute_of(now_ns.unsigned_abs());
        let last_minute = match now.wrapping_sub(minute) {
            0 => before,
            1 => count,
            _ => 0,
        };
        let last_ns = self.last_ns.load(Ordering::Relaxed) as i64;
        (messages > 0).then_some(DeviceSighting { messages, last_ns, last_minute })
    }

    /// Continues the counts of the same device, whose row was looked up again.
    pub fn continue_from(&self, before: &Self) {
        for (own, before) in [
            (&self.messages, &before.messages),
            (&self.last_ns, &before.last_ns),
            (&self.minutes, &before.minutes),
        ] {
            own.store(before.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Makes a device; its identity is escaped here, once.
pub fn make_device(device: &str, site: &str, affinity: DeviceHash) -> Device {
    Device {
        id: DeviceId::new(device),
        site: site.to_owned(),
        identity_tags: identity_tags(device, site).map_err(|fault| fault.to_string()),
        affinity,
        activity: DeviceActivity::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_the_rate_of_its_last_whole_minute() {
        let activity = DeviceActivity::default();
        let at = |minute: i64, second: i64| (minute * 60 + second) * 1_000_000_000;
        assert_eq!(activity.sighting(at(29_000_000, 0)), None);
        for second in 0..30 {
            activity.record(at(29_000_000, second));
        }
        let seen = |ns| activity.sighting(ns).unwrap().last_minute;
        assert_eq!(seen(at(29_000_000, 59)), 0);
        assert_eq!((seen(at(29_000_001, 0)), seen(at(29_000_002, 0))), (30, 0));
        activity.record(at(29_000_001, 5));
        assert_eq!((seen(at(29_000_001, 5)), seen(at(29_000_002, 0))), (30, 1));
        activity.record(at(29_000_000, 59));
        assert_eq!(seen(at(29_000_001, 5)), 30);
        let next = DeviceActivity::default();
        next.continue_from(&activity);
        let sighting = next.sighting(at(29_000_001, 6)).unwrap();
        assert_eq!(sighting, DeviceSighting { messages: 32, last_ns: at(29_000_001, 5), last_minute: 30 });
    }
}

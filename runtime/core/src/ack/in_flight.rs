//! Messages between a source and the queue of the spool: a stop waits until there are none.

use std::sync::atomic::{AtomicU64, Ordering};

/// The count, on a cache line of its own: all threads change it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// A count of received messages that have not ended and are in no queue of the spool or of
/// quarantine. A message that waits for the registry is not counted.
#[derive(Debug)]
pub struct InFlight(&'static Counter);

impl Default for InFlight {
    fn default() -> Self {
        // There is one for each process, and it lives as long as that. So a guard is a plain reference: to count
        // references would cost each message as much as the count itself.
        Self(Box::leak(Box::default()))
    }
}

impl InFlight {
    /// Counts one message until the guard is dropped.
    pub fn enter(&self) -> InFlightGuard {
        self.0.0.fetch_add(1, Ordering::AcqRel);
        InFlightGuard(self.0)
    }

    /// Counts so many messages at once.
    pub fn enter_all(&self, messages: usize) -> InFlightGuards {
        self.0.0.fetch_add(messages as u64, Ordering::AcqRel);
        InFlightGuards { counter: Some(self.0), messages: messages as u64 }
    }

    /// Messages between a source and the spool.
    pub fn count(&self) -> u64 {
        self.0.0.load(Ordering::Acquire)
    }
}

/// One message that is counted in an `InFlight`.
#[derive(Debug)]
pub struct InFlightGuard(&'static Counter);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Many messages that are counted in one `InFlight`, and leave it together.
#[derive(Debug, Default)]
pub struct InFlightGuards {
    counter: Option<&'static Counter>,
    messages: u64,
}

impl InFlightGuards {
    pub fn count(&self) -> u64 {
        self.messages
    }

    /// Takes one of them out.
    pub fn pop(&mut self) -> Option<InFlightGuard> {
        self.messages = self.messages.checked_sub(1)?;
        self.counter.map(InFlightGuard)
    }
}

impl FromIterator<InFlightGuard> for InFlightGuards {
    fn from_iter<I: IntoIterator<Item = InFlightGuard>>(guards: I) -> Self {
        let mut all = Self::default();
        for guard in guards {
            let counter = *all.counter.get_or_insert(guard.0);
            // One of another count leaves it now.
            if std::ptr::eq(counter, guard.0) {
                all.messages += 1;
                std::mem::forget(guard);
            }
        }
        all
    }
}

impl Drop for InFlightGuards {
    fn drop(&mut self) {
        if let Some(counter) = self.counter {
            counter.0.fetch_sub(self.messages, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_enter_together_leave_one_by_one_and_together_again() {
        let in_flight = InFlight::default();
        let mut together = in_flight.enter_all(3);
        assert_eq!((in_flight.count(), together.count()), (3, 3));
        let (one, other) = (together.pop().unwrap(), together.pop().unwrap());
        drop(one);
        assert_eq!((in_flight.count(), together.count()), (2, 1));
        drop(together);
        assert_eq!(in_flight.count(), 1);
        let elsewhere = InFlight::default();
        let all: InFlightGuards = [other, elsewhere.enter(), in_flight.enter()].into_iter().collect();
        assert_eq!((in_flight.count(), elsewhere.count(), all.count()), (2, 0, 2));
        drop(all);
        assert_eq!(in_flight.count(), 0);
        assert!(in_flight.enter_all(0).pop().is_none());
    }
}

//! The orders to stop, given to the connections of a listener in parts: all of them when the gateway stops, one
//! part after the other when the listener is drained, so that its devices do not all connect elsewhere at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::limits::LISTENER_DRAIN_PARTS;
use crate::status::StopSignal;

/// The parts of a listener's connections, and whether it is drained.
#[derive(Debug)]
pub struct ListenerDrain {
    /// The order to each part.
    parts: Vec<watch::Sender<Option<Instant>>>,
    next: AtomicUsize,
    /// New connections are ended at once.
    is_on: AtomicBool,
    /// The gateway itself stops.
    is_stopping: AtomicBool,
}

impl Default for ListenerDrain {
    fn default() -> Self {
        let parts = (0..LISTENER_DRAIN_PARTS).map(|_| watch::Sender::new(None)).collect();
        let (is_on, is_stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { parts, next: AtomicUsize::new(0), is_on, is_stopping }
    }
}

impl ListenerDrain {
    /// The orders to a new connection. Parts get the same number of connections.
    pub(super) fn orders(&self) -> StopSignal {
        // The first part is the first that ends.
        let part = match self.is_on.load(Ordering::Acquire) {
            true => 0,
            false => self.next.fetch_add(1, Ordering::Relaxed) % self.parts.len(),
        };
        self.parts[part].subscribe()
    }

    /// Passes the gateway's own order to stop on to all connections.
    pub(super) async fn follow(&self, mut stop: StopSignal) {
        loop {
            let order = *stop.borrow_and_update();
            if order.is_some() {
                self.is_stopping.store(true, Ordering::Release);
                self.order(order);
            }
            if stop.changed().await.is_err() {
                return;
            }
        }
    }

    /// Gives all parts the same order.
    fn order(&self, order: Option<Instant>) {
        for part in &self.parts {
            part.send_replace(order);
        }
    }

    /// Ends the connections, part by part, within `spread`. Each reads no more, and ends when its messages are
    /// acknowledged, after `patience` at the latest. New connections are ended at once, until `resume`.
    ///
    /// It may be dropped in between; `resume` takes back what it did.
    pub async fn run(&self, spread: Duration, patience: Duration) {
        self.is_on.store(true, Ordering::Release);
        let step = spread / LISTENER_DRAIN_PARTS as u32;
        for part in &self.parts {
            // An order of the gateway itself is nearer.
            part.send_if_modified(|order| {
                let is_new = order.is_none();
                *order = order.or_else(|| Some(Instant::now() + patience));
                is_new
            });
            sleep(step).await;
        }
    }

    /// Takes new connections again, unless the gateway stops.
    pub fn resume(&self) {
        if self.is_stopping.load(Ordering::Acquire) {
            return;
        }
        self.is_on.store(false, Ordering::Release);
        self.order(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn ended(orders: &[StopSignal]) -> usize {
        orders.iter().filter(|order| order.borrow().is_some()).count()
    }

    #[tokio::test]
    async fn connections_end_in_parts_and_new_ones_at_once_until_it_resumes() {
        let drain = ListenerDrain::default();
        let orders: Vec<StopSignal> = (0..LISTENER_DRAIN_PARTS * 3).map(|_| drain.orders()).collect();
        assert_eq!(ended(&orders), 0);
        let hours = Duration::from_secs(360_000);
        // It ends the first part and waits.
        assert!(drain.run(hours, hours).now_or_never().is_none());
        assert_eq!(ended(&orders), 3);
        assert_eq!(ended(&[drain.orders(), drain.orders()]), 2);
        drain.run(Duration::ZERO, Duration::from_secs(60)).await;
        assert_eq!(ended(&orders), orders.len());
        drain.resume();
        assert_eq!(ended(&[drain.orders()]), 0);
    }

    #[tokio::test]
    async fn the_gateway_s_own_order_reaches_all_and_is_not_put_off_by_a_drain() {
        let drain = ListenerDrain::default();
        let orders: Vec<StopSignal> = (0..LISTENER_DRAIN_PARTS).map(|_| drain.orders()).collect();
        let (stop, stopping) = watch::channel(None);
        let soon = Instant::now() + Duration::from_secs(1);
        stop.send_replace(Some(soon));
        drop(stop);
        drain.follow(stopping).await;
        drain.run(Duration::ZERO, Duration::from_secs(60)).await;
        drain.resume();
        assert!(orders.iter().all(|order| *order.borrow() == Some(soon)));
    }
}

//! The drain of a gateway. `/readyz` answers 503 from its begin on. After a notice, in which balancers learn of that,
//! the listener's devices are sent away in parts. Messages that are under way end as ever, and lines are written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::source::listener::ListenerDrain;

/// The times of a drain.
#[derive(Clone, Copy, Debug)]
pub struct DrainSettings {
    /// From its begin until the first device is sent away.
    pub notice: Duration,
    /// From the first device to the last.
    pub spread: Duration,
    /// For the messages of a device to be acknowledged.
    pub patience: Duration,
}

/// The switch of a drain. A process begins without one.
#[derive(Debug)]
pub struct Drain {
    settings: DrainSettings,
    is_on: watch::Sender<bool>,
}

impl Drain {
    pub fn new(settings: DrainSettings) -> Arc<Self> {
        Arc::new(Self { settings, is_on: watch::Sender::new(false) })
    }

    pub fn is_on(&self) -> bool {
        *self.is_on.borrow()
    }

    /// Tells of each turn of the switch.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.is_on.subscribe()
    }

    /// Begins a drain, or ends it: the gateway takes devices again. False if nothing changes.
    pub fn switch(&self, on: bool) -> bool {
        let has_changed = self.is_on.send_if_modified(|is_on| std::mem::replace(is_on, on) != on);
        if has_changed {
            match on {
                true => tracing::warn!(
                    "the gateway is drained: it takes no new devices, and sends away those that it has"
                ),
                false => tracing::info!("the drain has ended: the gateway takes devices again"),
            }
        }
        has_changed
    }

    /// Drains the listener whenever it is switched on, until the order to stop.
    pub async fn run(
        self: Arc<Self>,
        listener: Arc<ListenerDrain>,
        mut stop: watch::Receiver<Option<Instant>>,
    ) {
        let mut is_on = self.is_on.subscribe();
        loop {
            tokio::select! {
                _ = stop.wait_for(Option::is_some) => return,
                on = is_on.wait_for(|is_on| *is_on) => if on.is_err() { return },
            }
            let draining = async {
                sleep(self.settings.notice).await;
                listener.run(self.settings.spread, self.settings.patience).await;
                tracing::info!("all devices were sent away");
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = stop.wait_for(Option::is_some) => return,
                _ = is_on.wait_for(|is_on| !*is_on) => {}
                () = draining => {}
            }
            listener.resume();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_with_its_switch_and_its_task_with_the_order_to_stop() {
        let none = Duration::ZERO;
        let drain = Drain::new(DrainSettings { notice: none, spread: none, patience: none });
        let (stop, stopping) = watch::channel(None);
        let task = tokio::spawn(drain.clone().run(Arc::default(), stopping));
        for on in [true, false, true] {
            assert!(drain.switch(on) && !drain.switch(on));
            assert_eq!(drain.is_on(), on);
            tokio::task::yield_now().await;
        }
        stop.send_replace(Some(Instant::now()));
        task.await.unwrap();
    }
}

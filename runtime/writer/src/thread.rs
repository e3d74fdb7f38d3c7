//! The thread that all requests to databases are made on: a runtime of its own, whose single thread
//! needs no other to be woken for. One POST costs it some 30 us, so it carries twenty thousand a second;
//! compressing is done elsewhere. While nothing waits for the answers it lets several of them gather.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::WriterError;
use crate::limits;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

pub struct WriterThread {
    pub runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    /// `idle_delay` is the one that the writer's requests are counted in.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(idle_delay: Arc<IdleDelay>) -> Result<Self, WriterError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("compress")
            .on_thread_park(move || {
                let delay = idle_delay.idle_delay();
                if !delay.is_zero() {
                    std::thread::sleep(delay);
                }
            })
            .build()
            .map_err(WriterError::Thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = worker::start("writer", Priority::Normal, move || {
            // Ends by a signal, or when the sender is gone.
            let _ = runtime.block_on(stopped);
            // Requests under way carry durable lines, and are not waited for.
            runtime.shutdown_background();
        })
        .map_err(WriterError::Thread)?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there ends the process.
            let _ = thread.join();
        }
    }
}

/// Counts of requests under way, and the delay that follows from them. Nobody waits for the answers
/// to small requests of databases that keep up, so several answers are handled at once.
#[derive(Debug, Default)]
pub struct IdleDelay {
    easy: AtomicUsize,
    urgent: AtomicUsize,
}

/// One request under way; counted until it is dropped.
pub struct IdleDelayGuard {
    idle_delay: Arc<IdleDelay>,
    urgent: bool,
}

impl IdleDelay {
    /// The sleep of a thread that has nothing to do at the moment.
    pub fn idle_delay(&self) -> Duration {
        let several = self.easy.load(Ordering::Relaxed) >= 2;
        if several && self.urgent.load(Ordering::Relaxed) == 0 {
            return Duration::from_millis(limits::WRITER_IDLE_DELAY_MS);
        }
        Duration::ZERO
    }

    /// `urgent`: others wait for the request's end.
    pub(crate) fn begin(self: &Arc<Self>, urgent: bool) -> IdleDelayGuard {
        self.count(urgent).fetch_add(1, Ordering::Relaxed);
        IdleDelayGuard { idle_delay: self.clone(), urgent }
    }

    fn count(&self, urgent: bool) -> &AtomicUsize {
        if urgent { &self.urgent } else { &self.easy }
    }
}

impl Drop for IdleDelayGuard {
    fn drop(&mut self) {
        self.idle_delay.count(self.urgent).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_delay_only_while_several_are_under_way_and_none_is_waited_for() {
        let idle = Arc::new(IdleDelay::default());
        let one = idle.begin(false);
        assert!(idle.idle_delay().is_zero());
        let two = idle.begin(false);
        assert!(!idle.idle_delay().is_zero());
        let urgent = idle.begin(true);
        assert!(idle.idle_delay().is_zero());
        drop(urgent);
        assert!(!idle.idle_delay().is_zero());
        drop((one, two));
        assert!(idle.idle_delay().is_zero());
    }
}

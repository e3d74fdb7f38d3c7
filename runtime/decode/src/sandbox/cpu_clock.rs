//! CPU time: that of a thread, and the clock that ends calls which use too much.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::limits::EPOCH_TICK_MS;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

/// The clock that ends long calls: increments the epoch every tick while a guest runs, and sleeps
/// while none does, so that an idle gateway costs nothing.
#[derive(Debug)]
pub struct EpochClock {
    running: AtomicUsize,
    thread: Thread,
}

impl EpochClock {
    /// Starts the clock's thread, which ends with the engine.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(engine: &Engine) -> std::io::Result<Arc<Self>> {
        let engine = engine.weak();
        let (to_thread, from_here) = std::sync::mpsc::channel::<Weak<Self>>();
        let thread = worker::start("epoch", Priority::Normal, move || {
            let Ok(clock) = from_here.recv() else { return };
            while let (Some(engine), Some(clock)) = (engine.upgrade(), clock.upgrade()) {
                if clock.running.load(Ordering::SeqCst) == 0 {
                    drop((engine, clock));
                    std::thread::park();
                    continue;
                }
                engine.increment_epoch();
                drop((engine, clock));
                std::thread::sleep(Duration::from_millis(EPOCH_TICK_MS));
            }
        })?;
        let clock = Arc::new(Self { running: AtomicUsize::new(0), thread: thread.thread().clone() });
        let _ = to_thread.send(Arc::downgrade(&clock));
        Ok(clock)
    }

    /// Ticks until the guard is dropped.
    pub fn run(&self) -> RunGuard<'_> {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        RunGuard(self)
    }
}

impl Drop for EpochClock {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

/// Keeps the clock ticking while a guest runs.
#[derive(Debug)]
pub struct RunGuard<'a>(&'a EpochClock);

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

thread_local! {
    /// The last reading of this thread's CPU time, and when that was.
    static LAST_READ: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
}

/// CPU time that the calling thread has used, or up to a millisecond more: between two readings all time counts
/// as used. A reading is a system call, which costs as much as a short message.
pub fn thread_cpu_about() -> Duration {
    let now = Instant::now();
    if let Some((cpu, read)) = LAST_READ.get() {
        let age = now.saturating_duration_since(read);
        if age < Duration::from_millis(EPOCH_TICK_MS) {
            return cpu + age;
        }
    }
    let cpu = thread_cpu();
    LAST_READ.set(Some((cpu, now)));
    cpu
}

/// CPU time that the calling thread has used (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours; this clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn what_is_read_now_and_then_follows_what_the_thread_uses_and_not_what_it_sleeps() {
        let (began, exact) = (thread_cpu_about(), thread_cpu());
        std::thread::sleep(Duration::from_millis(50));
        let slept = thread_cpu_about().saturating_sub(began);
        assert!(slept < Duration::from_millis(40), "{slept:?}");
        while thread_cpu() - exact < Duration::from_millis(30) {
            black_box(thread_cpu_about());
        }
        let (used, about) = (thread_cpu() - exact, thread_cpu_about().saturating_sub(began));
        let apart = used.max(about) - used.min(about);
        assert!(apart <= Duration::from_millis(3), "{used:?} {about:?}");
    }
}

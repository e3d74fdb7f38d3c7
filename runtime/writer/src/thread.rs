//! The thread that all requests to databases are made on: a runtime of its own, whose single thread
//! needs no other to be woken for. One POST costs it some 30 us, so it carries twenty thousand a second;
//! compressing is done elsewhere. While nobody waits for the answers it lets several of them gather.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::ease::Ease;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

pub struct WriterThread {
    pub runtime: Handle,
    ease: Arc<OnceLock<Arc<Ease>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let ease = Arc::new(OnceLock::<Arc<Ease>>::new());
        let of_writer = ease.clone();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("compress")
            .on_thread_park(move || {
                let rest = of_writer.get().map_or(Duration::ZERO, |ease| ease.rest());
                if !rest.is_zero() {
                    std::thread::sleep(rest);
                }
            })
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = worker::start("writer", Priority::Normal, move || {
            // Ends when it is told to, or when nobody can tell it any more.
            let _ = runtime.block_on(stopped);
            // What is still under way is durable, and is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, ease, stop: Some(stop), thread: Some(thread) })
    }

    /// From now on the thread takes as much time as the writer lets it.
    pub fn follow(&self, ease: Arc<Ease>) {
        let _ = self.ease.set(ease);
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

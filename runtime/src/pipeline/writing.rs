//! The thread that all requests to databases are made on: a runtime of its own, whose single thread
//! needs no other to be woken for. One POST costs it some 70 us, so it carries ten thousand a second;
//! compressing is done elsewhere.

use std::thread::JoinHandle;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

pub struct Writing {
    pub runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("compress").build();
        let runtime = runtime.context("the writer's runtime cannot start")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || {
            // Ends when it is told to, or when nobody can tell it any more.
            let _ = runtime.block_on(stopped);
            // What is still under way is durable, and is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was logged when it happened.
            let _ = thread.join();
        }
    }
}

//! A line on stderr now and then while a step takes long, so that nobody takes it for hanging.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::core::worker;
use crate::core::worker::Priority;

/// The time after which a step says that it goes on, and the interval after that.
const FIRST: Duration = Duration::from_secs(2);

const EVERY: Duration = Duration::from_secs(5);

/// A step that says so while it goes on, until this is dropped.
#[derive(Debug)]
pub struct Progress {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins a step. `step` is a text such as "compiling and checking boiler.wasm".
    pub fn start(step: impl Into<String>) -> Self {
        let step = step.into();
        let (done, is_done) = channel::<()>();
        let report = move || {
            let began = Instant::now();
            let mut pause = FIRST;
            while is_done.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("tidegate: {step} … {} s", began.elapsed().as_secs());
                pause = EVERY;
            }
        };
        // Without a thread the step is done in silence.
        let thread = worker::start("progress", Priority::Normal, report).ok();
        Self { done: Some(done), thread }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! The progress of a step that takes longer than a second, on a terminal: a spinner with the time, or a bar. Where stderr
//! is no terminal nothing is written.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::core::worker;
use crate::core::worker::Priority;

/// The time after which a step is shown.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// The interval in which the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// The bar that may be on the terminal now. A process does one long step at a time.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A step of unknown length, and one of so many parts.
const SPINNER: &str = "{spinner} {msg} ({elapsed})";

const BAR: &str = "{spinner} [{bar:30}] {pos} of {len} {msg} ({elapsed})";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A step that shows its progress while it goes on, until this is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Dropped to end the thread that shows the bar.
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins a step of unknown length. `step` is a text such as "boiler.wasm is compiled".
    pub fn start(step: impl Into<String>) -> Self {
        Self::show(None, SPINNER, step.into())
    }

    /// Begins a step of so many parts. `step` follows their numbers: "codecs are run".
    pub fn counted(step: impl Into<String>, parts: u64) -> Self {
        Self::show(Some(parts), BAR, step.into())
    }

    fn show(parts: Option<u64>, template: &str, step: String) -> Self {
        let bar = ProgressBar::with_draw_target(parts, ProgressDrawTarget::hidden()).with_message(step);
        bar.set_style(style(template));
        if !std::io::stderr().is_terminal() {
            return Self { bar, done: None, thread: None };
        }
        *SHOWN.lock() = Some(bar.clone());
        let (done, is_done) = channel::<()>();
        let shown = bar.clone();
        let show_late = move || {
            if is_done.recv_timeout(SHOWN_AFTER) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(TICK);
            }
        };
        // Without a thread the step is done in silence.
        let thread = worker::start("progress", Priority::Normal, show_late).ok();
        Self { bar, done: Some(done), thread }
    }

    /// One more part is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.done.take().is_some() {
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
            *SHOWN.lock() = None;
        }
        self.bar.finish_and_clear();
    }
}

/// Names another step of the progress that is shown, if one is. `step` follows the numbers of its parts, if they are
/// reported.
pub fn set_step(step: &'static str) {
    if let Some(bar) = &*SHOWN.lock() {
        bar.set_style(style(SPINNER));
        bar.set_message(step);
    }
}

/// Shows that so many parts of the step are done.
pub fn set_parts(done: u64, of: u64) {
    if let Some(bar) = &*SHOWN.lock() {
        bar.set_length(of);
        bar.set_position(done);
        bar.set_style(style(BAR));
    }
}

/// Writes something to the terminal while no bar stands in its way.
pub fn suspended<T>(write: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_and_what_is_written_in_between_is_written() {
        let progress = Progress::counted("parts are done", 3);
        progress.advance();
        progress.advance();
        assert_eq!((progress.bar.position(), progress.bar.length()), (2, Some(3)));
        assert_eq!(suspended(|| 7), 7);
    }
}

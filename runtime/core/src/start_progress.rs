//! The progress of long steps at the start of the gateway. Parts report it; the program may show it on a terminal.

use std::sync::OnceLock;

/// Called with the number of parts that are done, and of all.
pub type Listener = fn(done: u64, of: u64);

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Has progress reported to a function from now on; the first one stays.
pub fn listen(listener: Listener) {
    let _ = LISTENER.set(listener);
}

/// Reports that so many parts of a step are done.
pub fn report(done: usize, of: usize) {
    if let Some(listener) = LISTENER.get() {
        listener(done as u64, of as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    static SEEN: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn what_is_reported_reaches_the_first_listener_alone() {
        report(1, 2);
        listen(|done, of| SEEN.store(done * 100 + of, Ordering::Relaxed));
        listen(|_, _| SEEN.store(0, Ordering::Relaxed));
        report(3, 7);
        assert_eq!(SEEN.load(Ordering::Relaxed), 307);
    }
}

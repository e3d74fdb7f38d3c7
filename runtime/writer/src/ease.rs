//! Whether the writer may take its time: while all that is under way are small requests of databases
//! that keep up, nobody waits for their answers, and several are better handled at once than one by
//! one as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::limits;

/// Counts of what is under way.
#[derive(Debug, Default)]
pub struct Ease {
    easy: AtomicUsize,
    urgent: AtomicUsize,
}

/// A request that is under way.
pub struct UnderWay {
    ease: Arc<Ease>,
    urgent: bool,
}

impl Ease {
    /// How long the thread may rest that has nothing to do at the moment.
    pub fn rest(&self) -> Duration {
        let several = self.easy.load(Ordering::Relaxed) >= 2;
        if several && self.urgent.load(Ordering::Relaxed) == 0 {
            return Duration::from_millis(limits::WRITER_REST_MS);
        }
        Duration::ZERO
    }

    /// `urgent`: others wait for its end.
    pub fn begin(self: &Arc<Self>, urgent: bool) -> UnderWay {
        self.of(urgent).fetch_add(1, Ordering::Relaxed);
        UnderWay { ease: self.clone(), urgent }
    }

    fn of(&self, urgent: bool) -> &AtomicUsize {
        if urgent { &self.urgent } else { &self.easy }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.ease.of(self.urgent).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn there_is_a_rest_only_while_several_are_under_way_and_none_is_waited_for() {
        let ease = Arc::new(Ease::default());
        let one = ease.begin(false);
        assert!(ease.rest().is_zero());
        let two = ease.begin(false);
        assert!(!ease.rest().is_zero());
        let urgent = ease.begin(true);
        assert!(ease.rest().is_zero());
        drop(urgent);
        assert!(!ease.rest().is_zero());
        drop((one, two));
        assert!(ease.rest().is_zero());
    }
}

//! The events that viewers were shown of late, for a look at their payloads.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::{TAP_MEMORY_BYTES_MAX, TAP_MEMORY_EVENTS_MAX};
use crate::pipeline::tap::event::TapEvent;

/// The last events, oldest first.
#[derive(Debug, Default)]
pub struct TapMemory {
    events: VecDeque<Arc<TapEvent>>,
    bytes: usize,
}

impl TapMemory {
    pub fn push(&mut self, event: Arc<TapEvent>) {
        self.bytes += event.memory_bytes();
        self.events.push_back(event);
        while self.events.len() > TAP_MEMORY_EVENTS_MAX || self.bytes > TAP_MEMORY_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.memory_bytes();
        }
    }

    /// The event of this number. Numbers come from many threads: neighbours may have changed places.
    pub fn get(&self, id: u64) -> Option<Arc<TapEvent>> {
        self.events.iter().rev().find(|event| event.id == id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ack::tap_probe::ProbedMessage;
    use crate::pipeline::tap::event::TapOutcome;

    #[test]
    fn the_oldest_events_go_by_their_number_and_their_bytes() {
        let event = |id: u64, bytes: usize| {
            let message = ProbedMessage { payload: vec![0; bytes].into(), ..ProbedMessage::default() };
            Arc::new(TapEvent { id, ..TapEvent::without_lines(&message, TapOutcome::Empty) })
        };
        let mut memory = TapMemory::default();
        (0..=TAP_MEMORY_EVENTS_MAX as u64).for_each(|id| memory.push(event(id, 0)));
        assert!(memory.get(0).is_none() && memory.get(1).is_some());
        (0..1_000).for_each(|id| memory.push(event(10_000 + id, 64 << 10)));
        assert!(memory.get(1).is_none() && memory.get(10_999).is_some());
        assert!(memory.bytes <= TAP_MEMORY_BYTES_MAX);
    }
}

//! Which messages leave this thread for the slow lane.

use std::sync::Arc;

use super::{Decoder, Work};
use crate::decode::DecodeSink;
use crate::decode::large::Class;
use crate::decode::slow::{SlowLane, SlowRoute};
use crate::domain::message::Admitted;

/// The slow lane as one thread sees it.
pub(super) struct LaneOfThread(Arc<SlowLane>, usize);

impl LaneOfThread {
    pub(super) fn send(&self, slow: &Arc<SlowRoute>, messages: Vec<Admitted>, sink: &dyn DecodeSink) {
        // Lines of the same devices must not wait here while the lane makes later ones.
        sink.hand_on();
        self.0.send(self.1, slow, messages);
    }
}

impl Decoder {
    /// The lane for the messages of a slow route, and of a tenant that is over its share; also while some of this thread wait there, so that
    /// a device's messages stay in order.
    pub(super) fn slow_lane(&mut self, work: &Work) -> Option<(LaneOfThread, Arc<SlowRoute>)> {
        let (lane, number) = self.lane.as_ref()?;
        let served = self.served.get_mut(&work.tenant.id)?.get_mut(&work.message_type)?;
        let is_large = [Some(&work.route), work.fallback.as_ref()]
            .into_iter()
            .flatten()
            .any(|route| route.rules.class == Class::Large);
        let is_slow = is_large || work.route.is_slow();
        let is_over = work.cpu.as_ref().is_some_and(|cpu| lane.shares.is_over(cpu));
        if let Some(slow) = &served.slow {
            slow.note_pace(is_slow);
            if !is_slow && !is_over && slow.waits_of(*number) == 0 {
                served.slow = None;
                return None;
            }
        } else if !is_slow && !is_over {
            return None;
        }
        let new = || lane.route(&work.tenant, &work.message_type, is_large);
        let slow = served.slow.get_or_insert_with(new).clone();
        slow.note_pace(is_slow);
        Some((LaneOfThread(lane.clone(), *number), slow))
    }
}

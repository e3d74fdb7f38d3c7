//! `LaneHandle`: sends messages from a decode thread to the slow lane.

use std::sync::Arc;
use std::time::Duration;

use crate::decoder::route_context::RouteContext;
use crate::sandbox::class::GuestClass;
use crate::schedule::slow_lane::{SlowLane, SlowRoute};
use crate::sink::DecodeSink;
use tidegate_core::message::Admitted;

/// The slow lane as one thread sees it.
#[derive(Clone)]
pub(super) struct LaneHandle {
    lane: Arc<SlowLane>,
    /// The number of this decode thread in the lane.
    number: usize,
}

impl LaneHandle {
    pub(super) fn new(lane: Arc<SlowLane>, number: usize) -> Self {
        Self { lane, number }
    }

    /// Counts that messages of this route have held the thread for so long.
    pub(super) fn record_held(&self, context: &RouteContext, time: Duration) {
        if let Some(cpu) = &context.cpu {
            self.lane.quotas.record_held(cpu, self.number, time);
        }
    }

    pub(super) fn send(&self, slow: &Arc<SlowRoute>, messages: Vec<Admitted>, sink: &dyn DecodeSink) {
        // Lines of the same devices must not wait here while the lane makes later ones.
        sink.flush();
        self.lane.send(self.number, slow, messages);
    }

    /// The slow route of these messages, if they leave their decode thread: the route is slow, or its tenant
    /// is over its CPU quota, or holds the thread, or earlier ones wait there, so that a device's messages stay in order.
    pub(super) fn slow_route(
        &self,
        context: &RouteContext,
        known: &mut Option<Arc<SlowRoute>>,
    ) -> Option<Arc<SlowRoute>> {
        let lane = &self.lane;
        let is_large = [Some(&context.route.version), context.fallback.as_ref()]
            .into_iter()
            .flatten()
            .any(|version| version.rules.class == GuestClass::Large);
        let is_slow = is_large || context.standing.cost.is_slow();
        let is_over = context.cpu.as_ref().is_some_and(|cpu| lane.quotas.is_over(cpu, self.number));
        if let Some(slow) = known {
            slow.set_slow(is_slow);
            if !is_slow && !is_over && slow.waits_of(self.number) == 0 {
                *known = None;
                return None;
            }
        } else if !is_slow && !is_over {
            return None;
        }
        let new = || lane.route(&context.tenant, &context.message_type, is_large);
        let slow = known.get_or_insert_with(new).clone();
        slow.set_slow(is_slow);
        Some(slow)
    }
}

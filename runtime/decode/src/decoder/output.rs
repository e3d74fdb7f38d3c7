//! The outcome of one call: lines, empty messages and refusals, gathered and sent together.

use crate::decoder::route_context::RouteContext;
use crate::sink::DecodeSink;
use tidegate_core::ack::token::AckToken;
use tidegate_core::decoder_state::StateDelta;
use tidegate_core::message::{CheckedBatch, RefusedMessage};

/// The messages of one call, on their way out.
pub(super) struct BatchOutput {
    pub(super) checked: CheckedBatch,
    pub(super) empty: Vec<AckToken>,
    pub(super) refused: Vec<RefusedMessage>,
}

impl BatchOutput {
    pub(super) fn new(context: &RouteContext, bytes: usize) -> Self {
        let checked = CheckedBatch::empty(
            context.database.clone(),
            context.tenant.clone(),
            context.route.version.guest.tag.clone(),
            bytes,
        );
        Self { checked, empty: Vec::new(), refused: Vec::new() }
    }

    /// The changes that a route which keeps state leaves beside its lines.
    pub(super) fn state_delta(&mut self, context: &RouteContext) -> &mut StateDelta {
        self.checked
            .state_delta
            .get_or_insert_with(|| Box::new(StateDelta::new((&*context.message_type).into())))
    }

    pub(super) fn send(self, context: &RouteContext, sink: &dyn DecodeSink) {
        if !self.checked.messages.is_empty() || self.checked.state_delta.is_some() {
            sink.lines(vec![self.checked]);
        }
        if !self.empty.is_empty() {
            sink.empty(self.empty, &context.tenant.account);
        }
        if !self.refused.is_empty() {
            sink.refused(self.refused);
        }
    }
}

//! Messages that a decoder cannot resolve without the births of their edge node (Sparkplug).
//!
//! A decoder has no call for it. It refuses the message with one of two codes, or leaves a reason in the state of the
//! message's partition until the births have come. So it can name no other node than that of its own message.

use std::sync::Arc;

use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Refusal;
use crate::state::RouteStateView;
use tidegate_core::decoder_state::StateWrite;

/// Codes of refusals: no birth certificate is known, or the sequence of messages since then is broken.
const REFUSAL_CODES: [&str; 2] = ["NO_BIRTH", "BAD_SEQ"];

/// The key of the reason in the state.
const STATE_KEY: &str = "rebirth";

/// True for a refusal that only births help against.
pub(super) fn refusal_wants_births(refusal: &Refusal) -> bool {
    REFUSAL_CODES.contains(&&*refusal.code)
}

/// True if the partition that a message wrote to has a reason for which births are wanted.
pub(super) fn state_wants_births(route_state: &RouteStateView, writes: &[StateWrite]) -> bool {
    let partition: Option<&Arc<str>> = writes.first().map(|write| &write.partition);
    partition.is_some_and(|partition| route_state.has(partition, STATE_KEY))
}

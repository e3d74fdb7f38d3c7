//! The adapter between the bindings and a decoder.

use crate::batch_tapes::BatchTapes;
use crate::bindings::tidegate::ingest::types::{Outcome, Refusal};
use crate::decoder::Decoder;
use crate::ignored;
use crate::lines::Lines;
use crate::log;
use crate::message::Message;
use crate::route;

pub use crate::bindings::*;

/// Makes a decoder for a route.
pub fn configure<D: Decoder>(route: Route) -> Result<D, String> {
    D::configure(&route::Route {
        tenant: route.tenant,
        message_type: route.message_type,
        options: route.options,
    })
}

/// Decodes a batch, message by message.
#[inline]
pub fn decode<D: Decoder>(decoder: &mut D, batch: Batch) -> Decoded {
    let mut lines = Lines::default();
    lines.bytes.reserve(batch.payloads.len());
    let mut outcomes = Vec::with_capacity(batch.messages.len());
    let tapes = BatchTapes::default();
    let mut start = 0;
    for (index, message) in batch.messages.iter().enumerate() {
        let end = message.payload_end as usize;
        let one = Message {
            payload: &batch.payloads[start..end],
            received_ns: message.received_ns,
            index: index as u32,
            tapes: &tapes,
        };
        start = end;
        let before = lines.len();
        outcomes.push(match decoder.decode(&one, &mut lines) {
            Ok(()) => Outcome::Lines(lines.len() as u32),
            Err(refusal) => {
                lines.truncate(before);
                Outcome::Refused(Refusal { code: refusal.code, detail: refusal.detail })
            }
        });
    }
    if let Some(text) = ignored::take() {
        log::debug(&text);
    }
    Decoded { lines: lines.bytes, outcomes }
}

//! The adapter between the bindings and a decoder.

use std::cell::OnceCell;

use tidegate_json::Tape;

use crate::bindings::tidegate::ingest::envelope;
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

/// The tapes of one batch. The gateway is asked for them when the first is wanted.
#[derive(Debug, Default)]
pub struct BatchTapes(OnceCell<envelope::BatchTapes>);

impl BatchTapes {
    /// The tape of a message whose payload is `payload`.
    #[inline]
    pub(crate) fn tape<'a>(&'a self, index: u32, payload: &'a [u8]) -> Option<Tape<'a>> {
        let tapes = self.0.get_or_init(envelope::tapes);
        let index = index as usize;
        let start = if index == 0 { 0 } else { *tapes.ends.get(index - 1)? };
        let entries = tapes.entries.get(start as usize..*tapes.ends.get(index)? as usize)?;
        // SAFETY: the gateway made the tape of this payload.
        unsafe { Tape::new(payload, entries) }
    }
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

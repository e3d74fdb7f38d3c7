//! The decoder's side of `tidegate:ingest@1.0.0`.

use crate::decoder::{self, Decoder, Message};
use crate::lines::Lines;

wit_bindgen::generate!({
    path: "../wit/tidegate-ingest-1.0.0",
    world: "decoder",
    pub_export_macro: true,
    export_macro_name: "export_decoder",
    default_bindings_module: "tidegate_guest::wasm",
});

use tidegate::ingest::types::{Outcome, Refusal};

/// Makes a decoder for a route.
pub fn configure<D: Decoder>(route: Route) -> Result<D, String> {
    D::configure(&decoder::Route {
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
    let mut start = 0;
    for (index, message) in batch.messages.iter().enumerate() {
        let end = message.payload_end as usize;
        let one = Message {
            payload: &batch.payloads[start..end],
            received_ns: message.received_ns,
            index: index as u32,
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
    Decoded { lines: lines.bytes, outcomes }
}

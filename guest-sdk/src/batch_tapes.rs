//! The tapes of the payloads of one batch.

use std::cell::OnceCell;

use tidegate_json::Tape;

use crate::bindings::tidegate::ingest::envelope;

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

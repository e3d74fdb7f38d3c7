//! Wants more memory than any guest may have, before it has decoded anything.

use std::sync::atomic::{AtomicU8, Ordering};

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

/// 128 MiB of zeros, which the component does not carry but its memory must begin with.
static HOARD: [AtomicU8; 128 << 20] = [const { AtomicU8::new(0) }; 128 << 20];

pub struct Greedy;

impl Decoder for Greedy {
    fn configure(_: &Route) -> Result<Self, String> {
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let at = message.payload.len() % HOARD.len();
        lines.line("greedy").integer("byte", i64::from(HOARD[at].fetch_add(1, Ordering::Relaxed))).end()
    }
}

tidegate_guest::export!(Greedy);

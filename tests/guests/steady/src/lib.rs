//! Makes a line of every message: its `seq`, and nothing else of the payload.

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Steady;

impl Decoder for Steady {
    fn configure(_: &Route) -> Result<Self, String> {
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut reader = Reader::new(message.payload);
        let mut seq = 0;
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("seq") {
                seq = reader.number()?.as_i64().unwrap_or(0);
            }
        }
        lines.line("steady").integer("seq", seq).at(1_700_000_000_000_000_000 + seq)
    }
}

tidegate_guest::export!(Steady);

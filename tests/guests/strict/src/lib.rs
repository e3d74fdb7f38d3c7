//! The next version of `steady`, which cannot stand messages with the key `extra`: it refuses them,
//! traps, loops, or makes a line that is none, as the key's value says.

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Strict;

impl Decoder for Strict {
    fn configure(_: &Route) -> Result<Self, String> {
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut reader = Reader::new(message.payload);
        let (mut seq, mut extra) = (0, String::new());
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("seq") {
                seq = reader.number()?.as_i64().unwrap_or(0);
            } else if key.is("extra") {
                extra = reader.string()?.decode().into_owned();
            }
        }
        match extra.as_str() {
            "" => lines.line("strict").integer("seq", seq).at(1_700_000_000_000_000_000 + seq),
            "refuse" => Err(Refusal::new("EXTRA", "extra is not expected")),
            "trap" => panic!("extra"),
            "bad-line" => {
                lines.raw(b"no line");
                Ok(())
            }
            _ => loop {
                std::hint::black_box(seq);
            },
        }
    }
}

tidegate_guest::export!(Strict);

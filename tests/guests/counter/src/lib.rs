//! Makes deltas of a counter that only grows: of `count` what has come since the reading before, and
//! nothing of a device's first reading, nor of one that is not newer. The key `do` says what else it does:
//! `naive` takes every reading for a new one, `first` makes no line of one, `refuse` and `bad-line` end
//! badly after they have set something, `flood` sets all that it may, `forget` removes what is kept.

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Counter;

impl Decoder for Counter {
    fn configure(_: &Route) -> Result<Self, String> {
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut reader = Reader::new(message.payload);
        let (mut count, mut wish) = (0, String::new());
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("count") {
                count = reader.number()?.as_i64().unwrap_or(0) as u64;
            } else if key.is("do") {
                wish = reader.string()?.decode().into_owned();
            }
        }
        let state = message.state();
        if wish == "flood" {
            let value = [7; 1_024];
            for n in 0..32 {
                state.set(&format!("key-{n}-{}", "x".repeat(50)), &value)?;
            }
            return lines.line("flood").integer("count", count as i64).end();
        }
        if wish == "forget" {
            return Ok(state.remove("count")?);
        }
        let before = state.get_u64("count").unwrap_or(0);
        if count <= before && wish != "naive" {
            return Ok(());
        }
        state.set_u64("count", count)?;
        match wish.as_str() {
            "refuse" => return Err(Refusal::new("ON_PURPOSE", "after it has counted")),
            "bad-line" => {
                lines.raw(b"no line");
                return Ok(());
            }
            "first" => return Ok(()),
            _ => {}
        }
        let delta = count as i64 - before as i64;
        lines.line("counter").integer("delta", delta).at(1_700_000_000_000_000_000 + count as i64)
    }
}

tidegate_guest::export!(Counter);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_guest::testing::{Context, RECEIVED_NS, decode_with};

    #[test]
    fn a_delta_is_what_has_come_since_the_reading_before() {
        let context = Context::default();
        let decode = |payload: &str| {
            decode_with::<Counter>(&Route::default(), payload.as_bytes(), RECEIVED_NS, &context).unwrap()
        };
        assert_eq!(decode(r#"{"count":10}"#), "counter delta=10i 1700000000000000010\n");
        assert_eq!(decode(r#"{"count":17}"#), "counter delta=7i 1700000000000000017\n");
        assert_eq!(decode(r#"{"count":17}"#), "");
    }
}

//! A tenant's own decoder: pumps that send `pressure=3.2;flow=11.0;running=true` in the key
//! `reading` of their envelope.

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Pump;

impl Decoder for Pump {
    fn configure(_: &Route) -> Result<Self, String> {
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let reading = reading(message.payload)?;
        let mut line = lines.line("pump");
        for (key, value) in reading.split(';').filter_map(|part| part.split_once('=')) {
            line = match (value.parse::<f64>(), value.parse::<bool>()) {
                (Ok(number), _) => line.float(key, number),
                (_, Ok(flag)) => line.boolean(key, flag),
                _ => {
                    return Err(Refusal::new(
                        "BAD_VALUE",
                        format!("{key} is {value:?}: expected a number, true or false"),
                    ));
                }
            };
        }
        line.end()
    }
}

/// The text of the key `reading`.
fn reading(payload: &[u8]) -> Result<String, Refusal> {
    let mut reader = Reader::new(payload);
    reader.object()?;
    while let Some(key) = reader.next_key()? {
        if key.is("reading") {
            return Ok(reader.string()?.decode().into_owned());
        }
    }
    Err(Refusal::new("NO_READING", "the key reading is missing"))
}

tidegate_guest::export!(Pump);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures() {
        tidegate_guest::testing::fixtures::<Pump>(
            &Route::default(),
            concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"),
        );
    }
}

//! Cayenne Low Power Payload: the classic types and the extended ones, as fields of one line.
//!
//! A payload is a row of records: a channel, a type, and the type's value. A field is named after type and channel
//! (`temperature_3`); types of several numbers add `_x`, `_y`, `_z` and the like. A number that the format scales is a
//! float, one that it does not scale is an integer. A payload that does not fit the format to its last byte is refused,
//! because its values cannot be trusted.
//!
//! The format has no time of a reading: the lines have the time of receipt. Type 133 is a value like the others.
//! A channel that sends one type twice in a payload makes a further line, with a time of its own.
//!
//! Options: `measurement` (`lpp`), `names` (`temperature_1=water, gps_2=boat`), `repeats` (`lines` or `refuse`).

pub mod kinds;
mod options;
pub mod records;

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

use kinds::KINDS;
use options::{Options, Repeats};
use records::Records;

/// Lines of one message that the gateway takes.
const LINES_MAX: usize = 1_000;

pub struct Lpp {
    options: Options,
    written: LineContents,
    name: String,
}

impl Decoder for Lpp {
    fn configure(route: &Route) -> Result<Self, String> {
        Ok(Self { options: Options::read(route)?, written: LineContents::default(), name: String::new() })
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut records = Records::new(message.payload).peekable();
        for _ in 0..LINES_MAX {
            if records.peek().is_none() {
                return Ok(());
            }
            self.written.clear();
            let mut line = lines.line(&self.options.measurement);
            while let Some(record) = records.next_if(|next| match next {
                Ok(record) => !self.written.has(record.channel, record.place),
                Err(_) => true,
            }) {
                let record = record?;
                self.written.add(record.channel, record.place);
                self.options.write_name(record.kind.name, record.channel, &mut self.name);
                let stem = self.name.len();
                for (component, number) in record.numbers() {
                    self.name.truncate(stem);
                    self.name.push_str(component.suffix);
                    line = match component.divisor {
                        1 => line.integer(&self.name, number),
                        divisor => line.float(&self.name, number as f64 / f64::from(divisor)),
                    };
                }
            }
            line.end()?;
            if let (Some(Ok(record)), Repeats::Refuse) = (records.peek(), self.options.repeats) {
                let detail = format!(
                    "{} of channel {} stands twice: expected it once, or set repeats = \"lines\"",
                    record.kind.name, record.channel
                );
                return Err(Refusal::new("REPEATED", detail));
            }
        }
        match records.peek() {
            None => Ok(()),
            Some(_) => Err(Refusal::new(
                "TOO_MANY_RECORDS",
                format!(
                    "a channel repeats one type more than {LINES_MAX} times: expected fewer in one payload"
                ),
            )),
        }
    }
}

/// The channels and types of the line that is being written.
struct LineContents {
    channels: Box<[u32; 256]>,
}

const _: () = assert!(KINDS.len() <= 32, "a type is a bit of a channel");

impl Default for LineContents {
    fn default() -> Self {
        Self { channels: Box::new([0; 256]) }
    }
}

impl LineContents {
    fn clear(&mut self) {
        self.channels.fill(0);
    }

    fn has(&self, channel: u8, place: usize) -> bool {
        self.channels[usize::from(channel)] >> place & 1 == 1
    }

    fn add(&mut self, channel: u8, place: usize) {
        self.channels[usize::from(channel)] |= 1 << place;
    }
}

tidegate_guest::export!(Lpp);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_guest::testing;

    fn decode(options: &[(&str, &str)], payload: &[u8]) -> Result<String, Refusal> {
        testing::decode::<Lpp>(&testing::route(options), payload)
    }

    #[test]
    fn fixtures() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
        testing::fixtures::<Lpp>(&Route::default(), folder);
    }

    #[test]
    fn the_types_are_in_the_order_in_which_they_are_searched() {
        assert!(KINDS.is_sorted_by_key(|kind| kind.number));
        assert!(
            KINDS.iter().enumerate().all(|(place, kind)| kinds::Kind::of(kind.number).unwrap().0 == place)
        );
    }

    #[test]
    fn a_name_of_the_route_takes_the_place_of_type_and_channel() {
        let options = [("names", "temperature_1=water, gps_2=boat"), ("measurement", "tank")];
        let payload = [1, 103, 0, 215, 2, 136, 0, 0, 1, 0, 0, 2, 0, 0, 3, 3, 103, 0, 1];
        assert_eq!(
            decode(&options, &payload).unwrap(),
            "tank water=21.5,boat_latitude=0.0001,boat_longitude=0.0002,boat_altitude=0.03,temperature_3=0.1\n"
        );
    }

    #[test]
    fn a_value_that_repeats_makes_a_line_of_its_own_or_is_refused() {
        let payload = [4, 103, 0, 215, 5, 0, 1, 4, 103, 255, 223, 5, 0, 1, 5, 0, 0];
        assert_eq!(
            decode(&[], &payload).unwrap(),
            "lpp temperature_4=21.5,digital_in_5=1i\nlpp temperature_4=-3.3,digital_in_5=1i\nlpp digital_in_5=0i\n"
        );
        let refusal = decode(&[("repeats", "refuse")], &payload).unwrap_err().to_string();
        assert!(refusal.starts_with("REPEATED: temperature of channel 4 stands twice"), "{refusal}");
        let repeated = |times: usize| [7, 0, 1].repeat(times);
        assert_eq!(decode(&[], &repeated(LINES_MAX)).unwrap().lines().count(), LINES_MAX);
        assert_eq!(decode(&[], &repeated(LINES_MAX + 1)).unwrap_err().code, "TOO_MANY_RECORDS");
    }

    #[test]
    fn a_refusal_says_where_and_what_would_be_right() {
        for (payload, expected) in [
            (
                &[3, 103, 1][..],
                "TRUNCATED: the temperature of channel 3 (type 103, at byte 0) has 1 bytes of its value: expected 2",
            ),
            (&[3, 103, 1, 16, 9][..], "TRAILING_BYTES: one byte (0x09) is left at byte 4"),
            (&[1, 99, 0][..], "UNKNOWN_TYPE: type 99 of channel 1 at byte 1 is unknown"),
            (&[1, 240, 8][..], "UNKNOWN_TYPE: type 240 (polyline)"),
        ] {
            let refusal = decode(&[], payload).unwrap_err().to_string();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused_with_what_would() {
        let refusal = |key, value| decode(&[(key, value)], &[]).unwrap_err().detail;
        assert!(refusal("repeats", "last").contains("lines or refuse"));
        assert!(refusal("names", "temperature_1").contains("temperature_1=water"));
        assert!(refusal("names", "a=b,a=c").contains("twice"));
        assert!(refusal("channel", "1").contains("measurement, names, repeats"));
    }
}

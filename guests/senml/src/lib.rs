//! SenML, the Sensor Measurement Lists of RFC 8428, in JSON and in CBOR.
//!
//! Records are resolved as the RFC says: base name, time, unit, value and sum are applied, and a time below 2^28 seconds
//! is relative to the time of receipt. A label that ends in `_` and is not known, another version, a name with other
//! characters, two values in one record: each refuses the whole pack, because nothing of it can then be trusted.
//!
//! Options: `measurement` (`senml`), `layout` (`narrow` or `wide`), `format` (`auto`, `json` or `cbor`).

mod base64url;
pub mod record;
pub mod json;
pub mod cbor;
pub mod resolve;
mod layout;
mod options;

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

use layout::{Narrow, Wide};
use options::{Format, Layout, Options};
use record::Record;
use resolve::{Resolved, Resolver};

pub struct Senml {
    options: Options,
}

impl Decoder for Senml {
    fn configure(route: &Route) -> Result<Self, String> {
        Ok(Self { options: Options::read(route)? })
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let measurement = &self.options.measurement;
        match self.options.layout {
            Layout::Narrow => {
                let mut narrow = Narrow { measurement, lines, count: 0 };
                self.records(message, &mut |name, record| narrow.write(name, &record))
            }
            Layout::Wide => {
                let mut wide = Wide::default();
                self.records(message, &mut |name, record| wide.add(name, record))?;
                wide.write(measurement, lines)
            }
        }
    }
}

impl Senml {
    /// Gives each resolved record of a message with its name to a function, in the order of the pack.
    ///
    /// # Errors
    /// The payload is against RFC 8428, or the function refuses a record.
    pub fn records<'a>(
        &self,
        message: &Message<'a>,
        take: &mut dyn FnMut(&str, Resolved<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut resolver = Resolver::new(message.received_ns);
        let mut count = 0;
        let mut resolve = |record: Record<'a>| {
            count += 1;
            match resolver.resolve(record)? {
                Some(resolved) => take(resolver.name(), resolved),
                None => Ok(()),
            }
        };
        let is_cbor = match self.options.format {
            Format::Auto => message.payload.first().is_some_and(|byte| !byte.is_ascii()),
            format => format == Format::Cbor,
        };
        match is_cbor {
            true => cbor::read(message.payload, &mut resolve)?,
            false => json::read(message.payload, &mut resolve)?,
        }
        if count == 0 {
            return Err(Refusal::new("EMPTY_PACK", "the pack has no record: expected one or more"));
        }
        Ok(())
    }
}

tidegate_guest::export!(Senml);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_guest::testing;

    fn decode(options: &[(&str, &str)], payload: &[u8]) -> Result<String, Refusal> {
        testing::decode::<Senml>(&testing::route(options), payload)
    }

    const CLIMATE: &str = r#"[{"bn":"urn:dev:ow:1:","bt":1700000100,"n":"temp","u":"Cel","v":21.5},
        {"n":"humidity","u":"%RH","v":40},{"n":"label","vs":"Room"},{"n":"open","vb":true,"t":1},{"n":"raw","vd":"AQID"}]"#;

    #[test]
    fn fixtures() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
        testing::fixtures::<Senml>(&Route::default(), folder);
    }

    #[test]
    fn a_pack_is_a_line_for_each_record_or_for_each_device_and_time() {
        assert_eq!(
            decode(&[], CLIMATE.as_bytes()).unwrap(),
            "senml,name=urn:dev:ow:1:temp,unit=Cel value=21.5 1700000100000000000\n\
             senml,name=urn:dev:ow:1:humidity,unit=%RH value=40.0 1700000100000000000\n\
             senml,name=urn:dev:ow:1:label value_string=\"Room\" 1700000100000000000\n\
             senml,name=urn:dev:ow:1:open value_bool=true 1700000101000000000\n\
             senml,name=urn:dev:ow:1:raw value_data=\"AQID\" 1700000100000000000\n"
        );
        assert_eq!(
            decode(&[("layout", "wide"), ("measurement", "climate")], CLIMATE.as_bytes()).unwrap(),
            "climate,name=urn:dev:ow:1 temp=21.5,humidity=40.0,label=\"Room\",raw=\"AQID\" 1700000100000000000\n\
             climate,name=urn:dev:ow:1 open=true 1700000101000000000\n"
        );
        let twice = br#"[{"n":"d/x","u":"lon","v":1},{"n":"d/x","u":"lat","v":2}]"#;
        assert_eq!(decode(&[("layout", "wide")], twice).unwrap_err().code, "SAME_FIELD");
        assert_eq!(decode(&[], twice).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_record_without_a_time_has_the_time_of_receipt() {
        assert_eq!(decode(&[], br#"[{"n":"a","v":1}]"#).unwrap(), "senml,name=a value=1.0\n");
        let before = decode(&[], br#"[{"n":"a","v":1,"t":-60}]"#).unwrap();
        assert_eq!(before, "senml,name=a value=1.0 1699999940000000000\n");
    }

    #[test]
    fn a_refusal_says_where_and_what_would_be_right() {
        for (payload, expected) in [
            (
                &br#"[{"n":"a","v":1},{"n":"b","v":"1"}]"#[..],
                "BAD_TYPE: record 1 (at byte 17): v is a string: expected a number",
            ),
            (b"[{\"n\":\"a b\",\"v\":1}]", "BAD_NAME: record 0 (at byte 1): the name \"a b\" has ' '"),
            (
                b"[{\"bver\":11,\"n\":\"a\",\"v\":1}]",
                "BAD_VERSION: record 0 (at byte 1): bver is 11: expected an integer from 1 to 10",
            ),
            (b"[{\"n\":\"a\",\"v\":1,\"x_\":1}]", "MUST_UNDERSTAND: record 0 (at byte 1): the label \"x_\""),
            (b"\x81\xa2\x00\x61\x61\x02\x61", "BAD_TYPE: record 0 (at byte 1): v at byte 6 is string"),
            (b"\x81\xa2\x00\x61", "BAD_CBOR: the payload ends after 4 bytes"),
            (b"[{\"n\":\"a\",\"v\":1,\"v\":2}]", "DUPLICATE_LABEL: record 0"),
            (b"[{\"n\":\"a\",\"v\":1,\"t\":1e12}]", "BAD_TIME: record 0 (at byte 1): t is 1000000000000"),
            (b"[{\"n\":\"a\",\"bv\":1e308,\"v\":1e308}]", "BAD_NUMBER: record 0"),
        ] {
            let refusal = decode(&[], payload).unwrap_err().to_string();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
        let many = |records: usize| format!("[{}]", vec![r#"{"n":"a","v":1}"#; records].join(","));
        assert_eq!(decode(&[], many(1_000).as_bytes()).unwrap().lines().count(), 1_000);
        assert_eq!(decode(&[], many(1_001).as_bytes()).unwrap_err().code, "TOO_MANY_RECORDS");
    }

    #[test]
    fn cbor_may_have_indefinite_lengths() {
        let payload = b"\x9f\xbf\x00\x7f\x61a\x61b\xff\x08\x5f\x41\x01\x42\x02\x03\xff\xff\xff";
        assert_eq!(decode(&[], payload).unwrap(), "senml,name=ab value_data=\"AQID\"\n");
    }

    #[test]
    fn options_that_make_no_sense_are_refused_with_what_would() {
        let refusal = |key, value| decode(&[(key, value)], b"[]").unwrap_err().detail;
        assert!(refusal("layout", "broad").contains("narrow or wide"));
        assert!(refusal("format", "xml").contains("auto, json or cbor"));
        assert!(refusal("unit", "x").contains("measurement, layout, format"));
    }
}

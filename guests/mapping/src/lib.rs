//! A decoder that the route file describes: where the values of a payload stand, and what they become. The crate
//! `tidegate-mapping` is all of it; the README has the options.

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

#[derive(Debug)]
pub struct Mapping(tidegate_mapping::Mapping);

impl Decoder for Mapping {
    fn configure(route: &Route) -> Result<Self, String> {
        tidegate_mapping::Mapping::read(route).map(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        self.0.decode(message.payload, message.received_ns, lines)
    }
}

tidegate_guest::export!(Mapping);

#[cfg(test)]
mod tests {
    use super::*;

    /// The energy meter of the documentation.
    #[test]
    fn fixtures() {
        let options = [
            ("measurement", "energy_meter"),
            ("payload_bytes", "10"),
            (
                "fields",
                r#"{"energy_kwh":"u32be@2 * 0.001","power_w":"i24be@6","battery_percent":"u8@1",
                    "signal":{"value":"u8@9","none":"0xff"},"version":{"value":"u8@0","type":"integer"}}"#,
            ),
        ];
        tidegate_guest::testing::fixtures::<Mapping>(
            &tidegate_guest::testing::route(&options),
            concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"),
        );
    }
}

//! Shows what a decoder gets of a message: its payload in hexadecimal, its topic, and the attributes that the option
//! `names` lists.

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Facts {
    names: Vec<String>,
}

impl Decoder for Facts {
    fn configure(route: &Route) -> Result<Self, String> {
        let names = route.option("names").unwrap_or_default();
        Ok(Self { names: names.split(',').map(str::to_owned).collect() })
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let hex: String = message.payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut line = lines.line("facts").string("payload", &hex).string("topic", &message.topic());
        for name in &self.names {
            if let Some(value) = message.attribute(name) {
                line = line.string(name, &value);
            }
        }
        line.at(message.received_ns)
    }
}

tidegate_guest::export!(Facts);

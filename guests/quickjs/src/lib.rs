//! JavaScript codecs as makers of LoRaWAN devices publish them, unchanged.
//!
//! The script is the option `script`, or several files as JSON (`modules.rs`). It has `decodeUplink(input)` as TS013-1.0.0 of the LoRa Alliance says, or
//! `Decoder(bytes, port)`, or `Decode(fPort, bytes)`, and may have `normalizeUplink(input)`. It runs in QuickJS-NG,
//! whose heap is put back after each message: no message sees what another left behind. The clock is the time of
//! receipt, and random numbers depend on the message: the same message gives the same lines everywhere.
//!
//! Options:
//! - `port`: the port of messages that bring none; 1 by default.
//! - `output`: `decoded` (the default), `normalized`, or `json`: the whole answer in one field.
//! - `variables`: a table, which is `input.variables`.
//! - `script_bytes_max`: 65536 by default.
//! - All those of `tidegate-objects`.

mod limits;
mod heap;
mod value;
mod fault;
mod engine;
mod natives;
mod modules;
mod tree;
mod codec;
mod options;
mod lines;

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route, ignored, log};
use tidegate_objects::Objects;

use codec::{Answer, Codec, CodecFault, Uplink};
use options::{Options, Output};

/// The attribute with the port of a message, where a network server says it.
const PORT: &str = "f_port";

pub struct Js {
    codec: Codec,
    options: Options,
    objects: Objects,
}

impl Decoder for Js {
    fn configure(route: &Route) -> Result<Self, String> {
        let options = Options::read(route)?;
        let codec = Codec::new(&options.script, &options.variables)?;
        if options.output == Output::Normalized && !codec.can_normalize() {
            return Err(
                "option \"output\" is normalized, and the script has no function normalizeUplink(input)"
                    .to_owned(),
            );
        }
        Ok(Self { codec, options, objects: Objects::default() })
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let port = message.attribute(PORT).and_then(|port| port.parse().ok());
        let uplink = Uplink {
            bytes: message.payload,
            port: port.unwrap_or(self.options.port),
            received_ns: message.received_ns,
        };
        let output = self.options.output;
        let answer = self.codec.decode(uplink, output != Output::Decoded).map_err(refusal)?;
        for warning in &answer.warnings {
            log::warn(warning);
            ignored::record(warning, ignored::Kind::Warning);
        }
        let Answer { data, normalized, errors, .. } = &answer;
        if output != Output::Json && !errors.is_empty() {
            return Err(Refusal::new("CODEC_ERRORS", errors.join("; ")));
        }
        let rules = &self.options.rules;
        match output {
            Output::Json => lines.line(&rules.measurement).string("answer", &lines::json(&answer)).end(),
            Output::Decoded => lines::write(rules, &mut self.objects, data.as_ref(), lines),
            Output::Normalized => lines::write(rules, &mut self.objects, normalized.as_ref(), lines),
        }
    }
}

fn refusal(fault: CodecFault) -> Refusal {
    match fault {
        CodecFault::Thrown(function, fault) => {
            Refusal::new("CODEC_THREW", format!("{function} threw {fault}"))
        }
        CodecFault::Form(what) => Refusal::new("CODEC_ANSWER", what),
    }
}

tidegate_guest::export!(Js);

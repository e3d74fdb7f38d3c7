//! The JSON envelope of the Python service that Tidegate succeeds: `telemetry` and `heartbeat`.
//!
//! `{"ts": "2026-11-23T08:59:58Z", "seq": 7, "metrics": {"v": 1}, …}` becomes
//! `telemetry seq=7i,v=1i 1795424398000000000`; the gateway adds device and site.
//!
//! - `ts`: ISO 8601, exact to the nanosecond. Missing, or nothing that is read as a time: when the
//!   gateway received the message. A time outside 64-bit nanoseconds is refused.
//! - `seq`: an integer in 64 bits; missing is 0; anything else is refused.
//! - `metrics` (telemetry only): booleans and numbers become fields in their order, `1` an integer,
//!   `1.0` and `1E2` floats; null, texts, arrays and objects are left out. Missing, null, false, 0,
//!   `""`, `[]` and `{}` are no metrics; any other value that is no object is refused.
//! - Left-out metrics and a `ts` that is not used are reported (`tidegate_guest::ignored`).
//! - Of a key that stands twice, the last value counts, at the first one's place.

mod metrics;

use tidegate_guest::json::{Kind, Reader};
use tidegate_guest::time::{TimeFault, parse_iso8601};
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route, ignored};

/// The decoder of one message type.
pub struct Pulse {
    kind: MessageKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Telemetry,
    Heartbeat,
}

impl Decoder for Pulse {
    fn configure(route: &Route) -> Result<Self, String> {
        route.allow_options(&["kind"])?;
        match route.option("kind").unwrap_or(&route.message_type) {
            "telemetry" => Ok(Self { kind: MessageKind::Telemetry }),
            "heartbeat" => Ok(Self { kind: MessageKind::Heartbeat }),
            other => Err(format!(
                "it decodes telemetry and heartbeat, not {other:?}; options.kind says which of the two a type is"
            )),
        }
    }

    #[inline]
    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        // As the Python service wrote.
        lines.allow_backslash_ends();
        if self.kind == MessageKind::Telemetry {
            let is_written = match message.tape() {
                Some(tape) => metrics::write_from_tape(tape, lines),
                None => metrics::write_in_one_pass(message, lines),
            };
            if is_written {
                return Ok(());
            }
        }
        let envelope = Envelope::read(message.payload)?;
        let time_ns = envelope.time_ns(message.received_ns)?;
        match self.kind {
            MessageKind::Heartbeat => lines.line("heartbeat").integer("seq", envelope.seq()?).at(time_ns),
            MessageKind::Telemetry => metrics::write(envelope.metrics, envelope.seq()?, time_ns, lines),
        }
    }
}

/// The three values that matter, as they stand in the text; of each key the last.
struct Envelope<'a> {
    ts: Option<&'a str>,
    seq: Option<&'a str>,
    metrics: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(payload);
        let mut envelope = Self { ts: None, seq: None, metrics: None };
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            let place = if key.is("ts") {
                &mut envelope.ts
            } else if key.is("seq") {
                &mut envelope.seq
            } else if key.is("metrics") {
                &mut envelope.metrics
            } else {
                continue;
            };
            *place = Some(reader.skip_value()?);
        }
        reader.end()?;
        Ok(envelope)
    }

    fn time_ns(&self, received_ns: i64) -> Result<i64, Refusal> {
        let ignored = || {
            ignored::record("ts", ignored::Kind::Time);
            Ok(received_ns)
        };
        let Some(ts) = self.ts else { return ignored() };
        let mut reader = Reader::new(ts.as_bytes());
        if reader.peek()? != Kind::String {
            return ignored();
        }
        let text = reader.string()?.decode();
        match parse_iso8601(text.as_bytes()) {
            Ok(time_ns) => Ok(time_ns),
            Err(TimeFault::Form) => ignored(),
            Err(TimeFault::Range) => Err(Refusal::new(
                "BAD_TS",
                format!(
                    "ts is {text:?}: expected a time between 1677 and 2262, which 64-bit nanoseconds hold"
                ),
            )),
        }
    }

    fn seq(&self) -> Result<i64, Refusal> {
        let Some(seq) = self.seq else { return Ok(0) };
        // Most are short and plain.
        if seq.len() <= 18 && !seq.is_empty() && seq.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(seq.bytes().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')));
        }
        let mut reader = Reader::new(seq.as_bytes());
        let number = (reader.peek()? == Kind::Number).then(|| reader.number()).transpose()?;
        number.and_then(|number| number.as_i64().ok()).ok_or_else(|| {
            let shown: String = seq.chars().take(40).collect();
            Refusal::new("BAD_SEQ", format!("seq is {shown}: expected an integer in 64 bits"))
        })
    }
}

tidegate_guest::export!(Pulse);

//! The row of quarantine_events for a refused message, as the Python service wrote it.

use jiff::Timestamp;
use serde_json::Value as Json;
use tidegate_json::{Kind, Reader};

use tidegate_core::message::RefusedMessage;
use tidegate_core::reason::Reason;

/// A row, its values as PostgreSQL reads them from text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEvent {
    pub event_ts: Option<String>,
    pub topic: String,
    pub tenant_id: Option<String>,
    pub site_id: Option<String>,
    pub device_id: Option<String>,
    pub msg_type: Option<String>,
    pub reason: &'static str,
    pub payload: String,
}

impl QuarantineEvent {
    /// The row of a refused message; `msg_type` is the topic's, if it names one.
    pub fn new(refused: &RefusedMessage, msg_type: Option<&str>) -> Self {
        let received = iso_format(refused.received_ns);
        let read = PayloadView::read(&refused.payload);
        let (event_ts, site_id, payload) = match read {
            Some(read) => {
                let ts = match &read.ts {
                    EventTime::Missing => Some(received.clone()),
                    EventTime::Text(text) => {
                        tidegate_guest::time::parse_iso8601(text.as_bytes()).ok().map(iso_format)
                    }
                    EventTime::Other => None,
                };
                let payload = match read.ts {
                    EventTime::Missing => with_ts(read.text, &received),
                    EventTime::Text(_) | EventTime::Other => read.text.to_owned(),
                };
                (ts, read.site_id, without_nul(&payload))
            }
            None => {
                let raw = String::from_utf8_lossy(&refused.payload).replace('\0', "\u{fffd}");
                let payload = serde_json::json!({"ts": received, "parse_error": true, "raw": raw});
                (Some(received), None, payload.to_string())
            }
        };
        // The Python service stored no names if it could not read the topic.
        let named = |name: Option<String>| {
            name.filter(|_| refused.reason != Reason::BadTopicFormat).map(|name| plain(&name))
        };
        Self {
            event_ts,
            topic: plain(&refused.topic),
            tenant_id: named(refused.tenant.as_ref().map(ToString::to_string)),
            site_id: named(site_id),
            device_id: named(refused.device.as_ref().map(ToString::to_string)),
            msg_type: named(msg_type.map(str::to_owned)),
            reason: refused.reason.code(),
            payload,
        }
    }

    pub fn bytes(&self) -> usize {
        self.payload.len() + self.topic.len() + 200
    }
}

/// The text with each U+0000 replaced: PostgreSQL's text holds none.
pub fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Python's `isoformat` in UTC: six digits of the second, or none if they are zero.
fn iso_format(ns: i64) -> String {
    let us = ns.div_euclid(1_000);
    let time = Timestamp::from_microsecond(us).expect("64-bit nanoseconds are in range");
    let fraction = if us.rem_euclid(1_000_000) == 0 { "" } else { ".%6f" };
    time.strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}+00:00")).to_string()
}

enum EventTime {
    Missing,
    Text(String),
    Other,
}

/// A payload that is a JSON object.
struct PayloadView<'a> {
    text: &'a str,
    ts: EventTime,
    site_id: Option<String>,
}

impl<'a> PayloadView<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let mut reader = Reader::new(payload);
        if reader.peek().ok()? != Kind::Object {
            return None;
        }
        reader.object().ok()?;
        let (mut ts, mut site_id) = (EventTime::Missing, None);
        while let Some(key) = reader.next_key().ok()? {
            if key.is("ts") {
                ts = match reader.peek().ok()? {
                    Kind::String => EventTime::Text(reader.string().ok()?.decode().into_owned()),
                    _ => {
                        reader.skip_value().ok()?;
                        EventTime::Other
                    }
                };
            } else if key.is("site_id") {
                site_id = match reader.peek().ok()? {
                    Kind::String => Some(reader.string().ok()?.decode().into_owned()),
                    Kind::Number => Some(reader.number().ok()?.text().to_owned()),
                    _ => {
                        reader.skip_value().ok()?;
                        None
                    }
                };
            } else {
                reader.skip_value().ok()?;
            }
        }
        reader.end().ok()?;
        Some(Self { text, ts, site_id })
    }
}

/// The object with a `ts` behind its last value.
fn with_ts(object: &str, ts: &str) -> String {
    let body = object.trim_end().strip_suffix('}').unwrap_or(object);
    let comma = if is_empty(object) { "" } else { "," };
    format!("{body}{comma}\"ts\":{}}}", Json::from(ts))
}

fn is_empty(object: &str) -> bool {
    object.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('}'))
}

/// The JSON text with every escaped U+0000 in it replaced: jsonb holds none.
fn without_nul(json: &str) -> String {
    if !json.contains("\\u0000") {
        return json.to_owned();
    }
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(place) = rest.find('\\') {
        let (before, escape) = rest.split_at(place);
        text.push_str(before);
        // Behind a backslash stands one ASCII character, or u and four digits.
        let bytes = if escape.as_bytes().get(1) == Some(&b'u') { 6 } else { 2 };
        let (escape, behind) = escape.split_at(bytes.min(escape.len()));
        text.push_str(if escape == "\\u0000" { "\\ufffd" } else { escape });
        rest = behind;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_time_is_filled_in_as_the_last_key() {
        assert_eq!(with_ts("{} ", "t"), r#"{"ts":"t"}"#);
        assert_eq!(with_ts(r#"{"a":{}}"#, "t"), r#"{"a":{},"ts":"t"}"#);
        assert_eq!(with_ts(r#" { "a":"{" } "#, "t"), r#" { "a":"{" ,"ts":"t"}"#);
    }

    #[test]
    fn only_an_escaped_nul_is_replaced() {
        assert_eq!(without_nul(r#"{"a":"\u0000"}"#), r#"{"a":"\ufffd"}"#);
        assert_eq!(without_nul(r#"{"a":"\\u0000"}"#), r#"{"a":"\\u0000"}"#);
        assert_eq!(without_nul(r#"{"a":"\\\u0000\u00e4"}"#), r#"{"a":"\\\ufffd\u00e4"}"#);
    }

    #[test]
    fn times_look_as_python_prints_them() {
        assert_eq!(iso_format(1_795_424_400_123_456_789), "2026-11-23T09:00:00.123456+00:00");
        assert_eq!(iso_format(1_795_424_400_000_000_999), "2026-11-23T09:00:00+00:00");
        assert_eq!(iso_format(-1), "1969-12-31T23:59:59.999999+00:00");
    }
}

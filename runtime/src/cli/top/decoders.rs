//! The decoders of a view, with their rates.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

/// A decoder of the guests folder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderFigures {
    /// The folder: a tenant, or `_default`.
    pub tenant: String,
    pub message_type: String,
    pub state: String,
    pub guest: String,
    pub messages_per_s: u64,
    /// Microseconds of CPU time a message, since it serves; `None`: it had no message.
    pub cpu_us: Option<f64>,
    pub failures: u64,
    /// The reason why its file does not serve.
    pub error: Option<String>,
}

/// Messages of decoders, by folder and type.
pub type DecodedMessages = BTreeMap<(String, String), u64>;

/// The messages of all decoders in an answer.
pub fn messages(guests: &Value) -> DecodedMessages {
    let all = guests["guests"].as_array().into_iter().flatten();
    all.map(|guest| (place(guest), guest["messages"].as_u64().unwrap_or(0))).collect()
}

/// All decoders, the busiest first.
pub fn figures(guests: &Value, before: &DecodedMessages, took: Duration) -> Vec<DecoderFigures> {
    let all = guests["guests"].as_array().into_iter().flatten();
    let mut figures: Vec<DecoderFigures> = all.map(|guest| of_guest(guest, before, took)).collect();
    figures.sort_by(|a, b| {
        let place = |one: &DecoderFigures| (one.tenant.clone(), one.message_type.clone());
        b.messages_per_s.cmp(&a.messages_per_s).then_with(|| place(a).cmp(&place(b)))
    });
    figures
}

fn of_guest(guest: &Value, before: &DecodedMessages, took: Duration) -> DecoderFigures {
    let text = |key: &str| guest[key].as_str().map(str::to_owned);
    let place = place(guest);
    let messages = guest["messages"].as_u64().unwrap_or(0);
    let more = before.get(&place).map_or(0, |before| messages.saturating_sub(*before));
    let cpu_s = guest["cpu_seconds"].as_f64().unwrap_or_default();
    let failures = guest["failures"].as_object().into_iter().flatten();
    DecoderFigures {
        tenant: place.0,
        message_type: place.1,
        state: text("state").unwrap_or_default(),
        guest: text("guest").unwrap_or_else(|| "-".into()),
        messages_per_s: (more as f64 / took.as_secs_f64().max(0.001)).round() as u64,
        cpu_us: (messages > 0).then(|| cpu_s * 1e6 / messages as f64),
        failures: failures.filter_map(|(_, count)| count.as_u64()).sum(),
        error: text("error"),
    }
}

fn place(guest: &Value) -> (String, String) {
    let text = |key: &str| guest[key].as_str().unwrap_or_default().to_owned();
    (text("tenant"), text("type"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_busiest_decoder_comes_first_with_its_rate_and_its_cost() {
        let guest = |tenant: &str, messages: u64| {
            json!({"tenant": tenant, "type": "t", "state": "serving", "guest": "a@1", "messages": messages,
                "cpu_seconds": 0.001, "failures": {"trap": 2, "memory": 1}})
        };
        let before = messages(&json!({"guests": [guest("a", 10), guest("b", 100)]}));
        let now = json!({"guests": [guest("a", 11), guest("b", 500), guest("c", 0)]});
        let figures = figures(&now, &before, Duration::from_secs(2));
        let shown: Vec<_> = figures.iter().map(|one| (one.tenant.as_str(), one.messages_per_s)).collect();
        assert_eq!(shown, [("b", 200), ("a", 1), ("c", 0)]);
        assert_eq!((figures[0].cpu_us, figures[2].cpu_us, figures[0].failures), (Some(2.0), None, 3));
    }
}

//! What a decoder implements, and what it is given.

use crate::lines::Lines;
use crate::state::State;

/// What the routing table says: constant for the life of a decoder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The tenant whose messages are decoded.
    pub tenant: String,
    /// The `{type}` part of the topic.
    pub message_type: String,
    /// The `[options]` of the route's TOML file, in its order; every value as text.
    pub options: Vec<(String, String)>,
}

impl Route {
    /// An option's value, if it is set.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Refuses options that the decoder does not know: a misspelt one must not be ignored.
    ///
    /// # Errors
    /// Names the option and those that are known.
    pub fn allow_options(&self, known: &[&str]) -> Result<(), String> {
        match self.options.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) if known.is_empty() => Err(format!("option {key:?}: this decoder has none")),
            Some((key, _)) => Err(format!("option {key:?} is not one of {}", known.join(", "))),
            None => Ok(()),
        }
    }
}

/// Why no lines are made of a message; the message is kept in quarantine with these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For machines: upper-case ASCII, digits and `_`.
    pub code: String,
    /// For the person who owns the device: what was wrong, where, and what would be right.
    pub detail: String,
}

impl Refusal {
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: detail.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl From<tidegate_json::Error> for Refusal {
    fn from(error: tidegate_json::Error) -> Self {
        Self::new("BAD_JSON", error.to_string())
    }
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub payload: &'a [u8],
    /// When the gateway received it, in nanoseconds since the Unix epoch.
    pub received_ns: i64,
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    pub(crate) index: u32,
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) context: Option<&'a crate::testing::Context>,
}

impl<'a> Message<'a> {
    /// The payload as text.
    ///
    /// # Errors
    /// `NOT_UTF8`, with the byte.
    pub fn text(&self) -> Result<&'a str, Refusal> {
        std::str::from_utf8(self.payload).map_err(|error| {
            Refusal::new("NOT_UTF8", format!("byte {} of the payload is not UTF-8", error.valid_up_to()))
        })
    }

    /// The device that sent it, as the gateway has verified it. Costs a call of the host; a decoder
    /// that never asks pays for nothing.
    pub fn device(&self) -> String {
        self.ask(Asked::Device)
    }

    /// The site that the registry knows for that device; empty if it knows none.
    pub fn site(&self) -> String {
        self.ask(Asked::Site)
    }

    /// The MQTT topic that it was published to.
    pub fn topic(&self) -> String {
        self.ask(Asked::Topic)
    }

    /// Small values that the gateway keeps for this message's partition, by default its device. A
    /// decoder that never asks pays for nothing.
    pub fn state(&self) -> State<'a> {
        State(*self)
    }

    #[cfg(target_arch = "wasm32")]
    fn ask(&self, what: Asked) -> String {
        use crate::wasm::tidegate::ingest::context;
        match what {
            Asked::Device => context::device(self.index),
            Asked::Site => context::site(self.index),
            Asked::Topic => context::topic(self.index),
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn ask(&self, what: Asked) -> String {
        let Some(context) = self.context else { return String::new() };
        match what {
            Asked::Device => context.device.clone(),
            Asked::Site => context.site.clone(),
            Asked::Topic => context.topic.clone(),
        }
    }
}

#[derive(Clone, Copy)]
enum Asked {
    Device,
    Site,
    Topic,
}

/// A decoder for one route.
pub trait Decoder: Sized + 'static {
    /// Called once, before the first message.
    ///
    /// # Errors
    /// What is wrong with this route or its options, and what would be right: the decoder does not
    /// serve then.
    fn configure(route: &Route) -> Result<Self, String>;

    /// Makes lines of one message. What is kept in `self` may be there at the next message or may
    /// not: a decoder may be started anew at any time.
    ///
    /// # Errors
    /// Why it makes none; what was written for this message is taken back.
    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal>;
}

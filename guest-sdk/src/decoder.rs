//! The trait that a decoder implements, and its input.

use crate::lines::Lines;
use crate::state::State;

/// The route of a decoder. It does not change while the decoder lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The tenant of the messages.
    pub tenant: String,
    /// The `{type}` part of the topic.
    pub message_type: String,
    /// The `[options]` of the route's TOML file, in its order; every value as text.
    pub options: Vec<(String, String)>,
}

impl Route {
    /// The value of an option, if it is set.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Refuses options that the decoder does not know, so that a misspelt option is noticed.
    ///
    /// # Errors
    /// The unknown option, and the known ones.
    pub fn allow_options(&self, known: &[&str]) -> Result<(), String> {
        match self.options.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) if known.is_empty() => Err(format!("option {key:?}: this decoder has none")),
            Some((key, _)) => Err(format!("option {key:?} is not one of {}", known.join(", "))),
            None => Ok(()),
        }
    }
}

/// The reason for which a decoder refuses a message. The message goes to quarantine with this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code: upper-case ASCII letters, digits and `_`.
    pub code: String,
    /// The text for the owner of the device: the fault, its place, and the expected value.
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
    /// The time of receipt at the gateway, in nanoseconds since the Unix epoch.
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
    /// `NOT_UTF8`, with the position of the wrong byte.
    pub fn text(&self) -> Result<&'a str, Refusal> {
        std::str::from_utf8(self.payload).map_err(|error| {
            Refusal::new("NOT_UTF8", format!("byte {} of the payload is not UTF-8", error.valid_up_to()))
        })
    }

    /// The device that sent the message, as the gateway verified it. Each call is a call to the gateway.
    pub fn device(&self) -> String {
        self.ask(Asked::Device)
    }

    /// The site of the device in the registry; empty if there is none.
    pub fn site(&self) -> String {
        self.ask(Asked::Site)
    }

    /// The MQTT topic of the message.
    pub fn topic(&self) -> String {
        self.ask(Asked::Topic)
    }

    /// Small values that the gateway keeps for the partition of this message. By default a partition is a
    /// device.
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
    /// The fault of the route or its options, and the expected value. The decoder then does not serve.
    fn configure(route: &Route) -> Result<Self, String>;

    /// Makes lines from one message. `self` can be lost between two messages, because a decoder can be
    /// started again at any time.
    ///
    /// # Errors
    /// The reason for the refusal. Lines that were written for this message are dropped.
    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal>;
}

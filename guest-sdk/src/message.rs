//! One message, as a decoder sees it.

use tidegate_json::Tape;

use crate::refusal::Refusal;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub payload: &'a [u8],
    /// The time of receipt at the gateway, in nanoseconds since the Unix epoch.
    pub received_ns: i64,
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    pub(crate) index: u32,
    #[cfg(target_arch = "wasm32")]
    pub(crate) tapes: &'a crate::batch_tapes::BatchTapes,
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) context: Option<&'a crate::testing::context::Context>,
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) tape: Option<&'a crate::testing::tape::TestTape<'a>>,
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

    /// The payload's JSON as the gateway has read it already. `None`: it did not read it, or it is too long or has
    /// too many values; then `json` reads it. The first call in a batch is a call to the gateway.
    #[inline]
    pub fn tape(&self) -> Option<Tape<'a>> {
        #[cfg(target_arch = "wasm32")]
        return self.tapes.tape(self.index, self.payload);
        #[cfg(not(target_arch = "wasm32"))]
        self.tape.and_then(|tape| tape.get())
    }

    /// The device that sent the message, as the gateway verified it. Each call is a call to the gateway.
    pub fn device(&self) -> String {
        self.context_field(ContextField::Device)
    }

    /// The site of the device in the registry; empty if there is none.
    pub fn site(&self) -> String {
        self.context_field(ContextField::Site)
    }

    /// The MQTT topic of the message.
    pub fn topic(&self) -> String {
        self.context_field(ContextField::Topic)
    }

    /// A fact that the source of the message knows beside the payload, such as `f_port` of a LoRaWAN network server
    /// (docs/TOPICS.md). None: it knows nothing by that name. Each call is a call to the gateway.
    #[cfg(target_arch = "wasm32")]
    pub fn attribute(&self, name: &str) -> Option<String> {
        crate::bindings::tidegate::ingest::context::attribute(self.index, name)
    }

    /// A fact that the source of the message knows beside the payload, such as `f_port` of a LoRaWAN network server
    /// (docs/TOPICS.md). None: it knows nothing by that name.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.context.and_then(|context| context.attributes.get(name).cloned())
    }

    #[cfg(target_arch = "wasm32")]
    fn context_field(&self, field: ContextField) -> String {
        use crate::bindings::tidegate::ingest::context;
        match field {
            ContextField::Device => context::device(self.index),
            ContextField::Site => context::site(self.index),
            ContextField::Topic => context::topic(self.index),
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn context_field(&self, field: ContextField) -> String {
        let Some(context) = self.context else { return String::new() };
        match field {
            ContextField::Device => context.device.clone(),
            ContextField::Site => context.site.clone(),
            ContextField::Topic => context.topic.clone(),
        }
    }
}

/// The facts about a message that the gateway gives on request.
#[derive(Clone, Copy)]
enum ContextField {
    Device,
    Site,
    Topic,
}

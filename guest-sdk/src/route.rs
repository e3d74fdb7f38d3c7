//! The route of a decoder, with its options.

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

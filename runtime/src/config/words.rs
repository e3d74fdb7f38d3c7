//! Values that are words of a closed list.
//!
//! Reading takes any word and keeps it. So a higher layer can replace a wrong word of a lower one, and
//! the checks name the first wrong value in their own order, together with its key. A list with a word
//! that looks like a number takes a value of any type, so that the error can ask for the quotes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

use crate::config::error::ConfigError;
use crate::core::tenant::settings::WhenFull;
use crate::core::topic::EnvelopeKind;

/// An enum whose variants are the words that a key allows.
pub trait Words: Copy + PartialEq + 'static {
    /// Every variant with its word, in the order in which an error lists them.
    const ALL: &'static [(&'static str, Self)];
}

/// The value of such a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Word<T> {
    Known(T),
    /// The text as it was written. No configuration that passed the checks has one.
    Unknown(Value),
}

impl<T: Words> Word<T> {
    /// The variant, in the checks.
    ///
    /// # Errors
    /// The value is not in the list; names the key, the value and the list.
    pub fn check(&self, key: &str) -> Result<T, ConfigError> {
        let words = || T::ALL.iter().map(|(word, _)| *word);
        match self {
            Self::Known(variant) => Ok(*variant),
            Self::Unknown(Value::String(word)) => {
                let allowed: Vec<&str> = words().collect();
                Err(ConfigError::value(key, word, format!("one of {}", allowed.join(", "))))
            }
            Self::Unknown(value) => {
                let allowed: Vec<String> = words().map(|word| format!("{word:?}")).collect();
                Err(ConfigError::Value {
                    key: key.into(),
                    value: value.to_string(),
                    expected: format!("expected one of {}, in quotes", allowed.join(", ")),
                })
            }
        }
    }

    /// The variant, behind the checks.
    ///
    /// # Panics
    /// The configuration was not checked.
    pub fn get(&self) -> T {
        match self {
            Self::Known(variant) => *variant,
            Self::Unknown(value) => panic!("the value {value} should have been refused by the checks"),
        }
    }

    pub fn is(&self, variant: T) -> bool {
        matches!(self, Self::Known(known) if *known == variant)
    }

    /// The word as it is written in a file, behind the checks.
    ///
    /// # Panics
    /// The configuration was not checked.
    pub fn as_str(&self) -> &'static str {
        word_of(self.get())
    }
}

fn word_of<T: Words>(variant: T) -> &'static str {
    let found = T::ALL.iter().find(|(_, listed)| *listed == variant);
    found.expect("the list has every variant").0
}

impl<T> From<T> for Word<T> {
    fn from(variant: T) -> Self {
        Self::Known(variant)
    }
}

impl<T: Words> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(variant) => serializer.serialize_str(word_of(*variant)),
            Self::Unknown(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Words> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let looks_like_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let value = match T::ALL.iter().any(|(word, _)| looks_like_number(word)) {
            true => Value::deserialize(deserializer)?,
            false => Value::String(String::deserialize(deserializer)?),
        };
        let found = T::ALL.iter().find(|(word, _)| value.as_str() == Some(word));
        Ok(found.map_or(Self::Unknown(value), |(_, variant)| Self::Known(*variant)))
    }
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant,)* }

        impl Words for $name {
            const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)*];
        }
    };
}

words! {
    /// `mqtt.protocol`
    MqttProtocol { V5 = "5", V4 = "3.1.1", }
}

words! {
    /// `mqtt.retained`
    Retained { Drop = "drop", Accept = "accept", }
}

words! {
    /// `listen.credentials`
    ConnectCredentials { Auto = "auto", None = "none", Optional = "optional", Required = "required", }
}

words! {
    /// `listen.client_certificates`
    ClientCertificates { No = "no", Optional = "optional", Required = "required", }
}

words! {
    /// `registry.kind`
    RegistryKind { File = "file", Open = "open", Postgres = "postgres", }
}

words! {
    /// `admission.credentials` and `admission.types.TYPE.credentials`
    Credentials { Envelope = "envelope", Broker = "broker", Listener = "listener", }
}

words! {
    /// `admission.over_rate`
    OverRate { Slow = "slow", Refuse = "refuse", }
}

words! {
    /// `spool.sync`
    SpoolSync { Always = "always", Never = "never", }
}

words! {
    /// `output.kind`
    OutputKind { InfluxDb3 = "influxdb3", InfluxDb2 = "influxdb2", InfluxDb1 = "influxdb1", File = "file", }
}

words! {
    /// `output.gzip`
    Gzip { Auto = "auto", Always = "always", Never = "never", }
}

words! {
    /// `log.format`
    LogFormat { Text = "text", Json = "json", }
}

/// `spool.when_full` and `tenants.NAME.spool_when_full`
impl Words for WhenFull {
    const ALL: &'static [(&'static str, Self)] = &[("block", Self::Block), ("drop_oldest", Self::DropOldest)];
}

/// `topics.envelope`
impl Words for EnvelopeKind {
    const ALL: &'static [(&'static str, Self)] = &[
        ("pulse", Self::Pulse),
        ("things_stack", Self::ThingsStack),
        ("chirpstack", Self::ChirpStack),
        ("none", Self::None),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sections::Config;
    use toml::Value;

    #[test]
    fn a_word_is_written_as_it_was_read() {
        for (word, is_known) in [("open", true), ("postgres", true), ("Open", false), ("", false)] {
            let text = format!("[registry]\nkind = {word:?}\n");
            let config: Config = toml::from_str(&text).unwrap();
            let kind = config.registry.kind;
            assert_eq!(kind.check("registry.kind").is_ok(), is_known);
            assert_eq!(Value::try_from(&kind).unwrap(), Value::String(word.into()));
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_kept_only_where_a_word_looks_like_a_number() {
        for value in ["5", "3.1", "true", "[]", "{ a = 5 }"] {
            let read = |key| toml::from_str::<Config>(&format!("{key} = {value}\n"));
            let protocol = read("mqtt.protocol").unwrap().mqtt.protocol;
            assert_eq!(Value::try_from(&protocol).unwrap().to_string(), value);
            let error = protocol.check("mqtt.protocol").unwrap_err().to_string();
            let expected = r#"(expected one of "5", "3.1.1", in quotes)"#;
            assert!(
                error.contains(&format!("`mqtt.protocol`: {value} ")) && error.contains(expected),
                "{error}"
            );
            assert!(read("mqtt.retained").is_err());
        }
    }

    #[test]
    fn a_wrong_word_is_named_with_its_key_and_the_list() {
        let error = Word::<Gzip>::Unknown(Value::String("a \"b\"".into())).check("output.gzip").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"invalid value for `output.gzip`: "a \"b\"" (expected one of auto, always, never)"#
        );
    }
}

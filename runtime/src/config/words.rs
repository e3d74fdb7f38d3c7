//! Values that are words of a closed list.
//!
//! Reading takes any word and keeps it. So a higher layer can replace a wrong word of a lower one, and
//! the checks name the first wrong value in their own order, together with its key.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ConfigError;
use crate::domain::tenant::settings::WhenFull;

/// An enum whose variants are the words that a key allows.
pub trait Words: Copy + PartialEq + 'static {
    /// Every variant with its word, in the order in which an error lists them.
    const ALL: &'static [(&'static str, Self)];
}

/// The value of such a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word<T> {
    Known(T),
    /// As it was written. No configuration that passed the checks has one.
    Unknown(String),
}

impl<T: Words> Word<T> {
    /// The variant, in the checks.
    ///
    /// # Errors
    /// The word is not in the list; names the key, the word and the list.
    pub fn check(&self, key: &str) -> Result<T, ConfigError> {
        match self {
            Self::Known(variant) => Ok(*variant),
            Self::Unknown(word) => {
                let allowed: Vec<&str> = T::ALL.iter().map(|(word, _)| *word).collect();
                Err(ConfigError::value(key, word, format!("one of {}", allowed.join(", "))))
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
            Self::Unknown(word) => panic!("the word {word:?} should have been refused by the checks"),
        }
    }

    pub fn is(&self, variant: T) -> bool {
        matches!(self, Self::Known(known) if *known == variant)
    }

    /// The word as it is written in a file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(variant) => {
                let found = T::ALL.iter().find(|(_, listed)| listed == variant);
                found.expect("the list has every variant").0
            }
            Self::Unknown(word) => word,
        }
    }
}

impl<T> From<T> for Word<T> {
    fn from(variant: T) -> Self {
        Self::Known(variant)
    }
}

impl<T: Words> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Words> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = T::ALL.iter().find(|(listed, _)| *listed == word);
        Ok(found.map_or(Self::Unknown(word), |(_, variant)| Self::Known(*variant)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_word_is_written_as_it_was_read() {
        for (word, is_known) in [("open", true), ("postgres", true), ("Open", false), ("", false)] {
            let text = format!("[registry]\nkind = {word:?}\n");
            let config: Config = toml::from_str(&text).unwrap();
            let kind = config.registry.kind;
            assert_eq!((kind.as_str(), kind.check("registry.kind").is_ok()), (word, is_known));
            assert_eq!(toml::Value::try_from(&kind).unwrap(), toml::Value::String(word.into()));
        }
    }

    #[test]
    fn a_wrong_word_is_named_with_its_key_and_the_list() {
        let error = Word::<Gzip>::Unknown("a \"b\"".into()).check("output.gzip").unwrap_err();
        assert_eq!(error.to_string(), r#"output.gzip = "a \"b\"" is not good: one of auto, always, never"#);
    }
}

//! The origins of values: default, variable, file, table.

use std::collections::BTreeMap;

/// The process environment, as a map so that tests can make their own.
pub type Environment = BTreeMap<String, String>;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    Default,
    /// A variable: its name.
    Variable(String),
    /// The configuration file.
    File,
    /// The table of tenants in the registry.
    Table,
}

impl std::fmt::Display for ValueSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ValueSource::Default => f.write_str("default"),
            ValueSource::Variable(name) => write!(f, "variable {name}"),
            ValueSource::File => f.write_str("file"),
            ValueSource::Table => f.write_str("table tenants"),
        }
    }
}

/// The source of each key that is not at its default, by dotted path.
#[derive(Clone, Debug, Default)]
pub struct ValueSources(BTreeMap<String, ValueSource>);

impl ValueSources {
    pub fn of(&self, path: &str) -> ValueSource {
        self.0.get(path).cloned().unwrap_or(ValueSource::Default)
    }

    pub(super) fn note(&mut self, path: &str, source: ValueSource) {
        self.0.insert(path.to_owned(), source);
    }
}

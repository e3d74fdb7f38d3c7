//! A decoder that somebody puts, and the outcome of it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::builtin::{self, BuiltIn, SourceFile};
use crate::comparison::Comparison;
use crate::error::RolloutError;
use crate::expected_version::ExpectedVersion;
use crate::limits::ROUTE_FILE_BYTES_MAX;
use tidegate_core::route_key::RouteKey;
use tidegate_decode::DecodeHost;

/// The one who puts a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PutAuthor {
    Operator,
    /// A tenant with its own token, under which limits hold.
    Tenant(String),
}

impl fmt::Display for PutAuthor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

/// The file that makes a route.
#[derive(Clone, Debug)]
pub enum PutFile {
    Component(Vec<u8>),
    /// The route file of a built-in decoder. A component at the place goes.
    RouteFile(String),
    /// The source of a built-in decoder. A component at the place goes.
    Source(&'static BuiltIn, SourceFile, String),
}

impl PutFile {
    /// A file with this extension, without the dot.
    ///
    /// # Errors
    /// There is no such file of a route, or it is not text.
    pub fn new(extension: &str, bytes: Vec<u8>) -> Result<Self, String> {
        let text = |bytes| {
            String::from_utf8(bytes).map_err(|_| format!("the .{extension} file is not UTF-8: expected text"))
        };
        if extension == "wasm" {
            return Ok(Self::Component(bytes));
        }
        if extension == "toml" {
            return text(bytes).map(Self::RouteFile);
        }
        let source = builtin::of_extension(extension);
        match source.and_then(|built_in| Some((built_in, built_in.source?))) {
            Some((built_in, source)) => Ok(Self::Source(built_in, source, text(bytes)?)),
            None => {
                let known =
                    ["wasm", "toml"].into_iter().chain(builtin::sources().map(|known| known.extension));
                let known = known.collect::<Vec<_>>().join(", ");
                Err(format!("{extension:?} is no file of a decoder: expected one of {known}"))
            }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Component(bytes) => bytes,
            Self::RouteFile(text) | Self::Source(_, _, text) => text.as_bytes(),
        }
    }

    /// The longest such file, where a component may have this length.
    pub fn bytes_max(extension: &str, component_bytes_max: u64) -> u64 {
        let source = builtin::of_extension(extension).and_then(|built_in| built_in.source);
        match extension {
            "toml" => ROUTE_FILE_BYTES_MAX,
            _ => source.map_or(component_bytes_max, |source| source.bytes_max),
        }
    }

    pub fn extension(&self) -> &'static str {
        match self {
            Self::Component(_) => "wasm",
            Self::RouteFile(_) => "toml",
            Self::Source(_, source, _) => source.extension,
        }
    }
}

/// Takes a host on which a component serves alone, beside everything that runs.
#[derive(Clone)]
pub struct Trial(pub Arc<dyn Fn(Arc<DecodeHost>) + Send + Sync>);

impl Trial {
    /// Nobody uses it: it is about the verdict alone.
    pub fn for_verdict() -> Self {
        Self(Arc::new(|_| ()))
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trial(..)")
    }
}

/// A decoder for a place in the guests folder.
#[derive(Clone, Debug)]
pub struct PutRequest {
    pub route_key: RouteKey,
    pub file: PutFile,
    /// Cases that take the place of those beside the file. None: those stay.
    pub cases: Option<String>,
    pub author: PutAuthor,
    /// Refuses a version that decodes a remembered message differently.
    pub expect_same: bool,
    /// Refuses to take the place of another version. None: of whatever serves.
    pub expect_version: Option<ExpectedVersion>,
    /// Judges the component and lets this use it; nothing is put, and no decision is kept.
    pub trial: Option<Trial>,
}

impl PutRequest {
    /// A component alone.
    pub fn new(route_key: RouteKey, component: Vec<u8>, author: PutAuthor) -> Self {
        let file = PutFile::Component(component);
        Self { route_key, file, cases: None, author, expect_same: false, expect_version: None, trial: None }
    }
}

/// The outcome for a component that was put in place.
#[derive(Clone, Debug, Serialize)]
pub struct PutResult {
    pub guest: String,
    pub digest: String,
    /// `serving`; `unchanged`: it served already; `tried`: nothing was put.
    pub state: &'static str,
    /// The trial run on remembered messages, where another version served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// Called with the outcome for a component.
pub type PutReply = Box<dyn FnOnce(Result<PutResult, RolloutError>) + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_extension_says() {
        assert!(matches!(PutFile::new("wasm", vec![0xff]), Ok(PutFile::Component(_))));
        assert!(matches!(PutFile::new("toml", b"a = 1".to_vec()), Ok(PutFile::RouteFile(_))));
        assert!(PutFile::new("toml", vec![0xff]).unwrap_err().contains("UTF-8"));
        let error = PutFile::new("exe", Vec::new()).unwrap_err();
        assert!(error.contains("\"exe\"") && error.contains("wasm, toml"), "{error}");
    }
}

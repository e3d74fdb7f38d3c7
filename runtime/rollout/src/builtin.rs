//! The decoders that come with the program, by name. A route file that says `decoder = "json"` serves the
//! component that is embedded here, so it is as old as the program.
//!
//! `cargo xtask embed` builds the components from `guests/` and lays them into `builtin/components`. They lie in the
//! source, so that building the program needs no wasm32 target. A test holds them against what they were built from.

use std::sync::OnceLock;

use crate::digest::digest;
use crate::limits::SCRIPT_BYTES_MAX;

/// A decoder that comes with the program.
#[derive(Debug)]
pub struct BuiltIn {
    pub name: &'static str,
    pub component: &'static [u8],
    /// The file beside the route file that tells it what to do, such as a script.
    pub source: Option<SourceFile>,
    digest: OnceLock<String>,
}

/// A file `TYPE.EXTENSION` beside the route file `TYPE.toml`. Its text reaches the decoder as an option of the route.
/// Alone, without a route file, it makes a route too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Without the dot.
    pub extension: &'static str,
    pub option: &'static str,
    pub bytes_max: u64,
}

macro_rules! built_in {
    ($name:literal) => {
        built_in!($name, None)
    };
    ($name:literal, $source:expr) => {
        BuiltIn::new($name, include_bytes!(concat!("builtin/components/", $name, ".wasm")), $source)
    };
}

/// All of them, as they are listed.
pub static BUILT_IN: [BuiltIn; 8] = [
    built_in!("pulse"),
    built_in!("json"),
    built_in!("passthrough"),
    built_in!("lpp"),
    built_in!("senml"),
    built_in!("sparkplug"),
    built_in!("mapping"),
    built_in!("js", Some(SourceFile { extension: "js", option: "script", bytes_max: SCRIPT_BYTES_MAX })),
];

impl BuiltIn {
    const fn new(name: &'static str, component: &'static [u8], source: Option<SourceFile>) -> Self {
        Self { name, component, source, digest: OnceLock::new() }
    }

    /// SHA-256 of the component, computed once.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| digest(self.component))
    }
}

/// The decoder of a name.
///
/// # Errors
/// There is none; names those that there are.
pub fn find(name: &str) -> Result<&'static BuiltIn, String> {
    BUILT_IN.iter().find(|built_in| built_in.name == name).ok_or_else(|| {
        format!("decoder = {name:?}: there is no such built-in decoder; expected one of {}", names())
    })
}

/// The decoder of this component.
pub fn of_digest(digest: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|built_in| built_in.digest() == digest)
}

/// The decoder whose source files have this extension.
pub fn of_extension(extension: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|built_in| built_in.source.is_some_and(|source| source.extension == extension))
}

/// The source files that there are.
pub fn sources() -> impl Iterator<Item = SourceFile> {
    BUILT_IN.iter().filter_map(|built_in| built_in.source)
}

/// All names, for people.
pub fn names() -> String {
    BUILT_IN.iter().map(|built_in| built_in.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_those_that_there_are() {
        let error = find("jsno").unwrap_err();
        assert!(error.contains("\"jsno\"") && error.contains("pulse, json, passthrough"), "{error}");
        assert_eq!(find("json").unwrap().name, "json");
    }

    #[test]
    fn each_is_a_component_of_its_own() {
        for built_in in &BUILT_IN {
            assert_eq!(built_in.component[..8], [0, b'a', b's', b'm', 13, 0, 1, 0], "{}", built_in.name);
            assert_eq!(of_digest(built_in.digest()).unwrap().name, built_in.name);
        }
    }
}

//! The texts beside the component that make a version: the route file, and the source of a built-in decoder.

use crate::builtin;
use crate::digest::digest;

/// The texts of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteDefinition {
    /// The built-in decoder whose component it is; None: a component of the folder's own.
    pub built_in: Option<String>,
    pub route_file: Option<String>,
    /// The source file of the built-in decoder.
    pub source: Option<String>,
}

impl RouteDefinition {
    /// The name of a component with these texts.
    pub fn version(&self, component: &str) -> String {
        let mut version = component.to_owned();
        for text in [&self.route_file, &self.source].into_iter().flatten() {
            version.push('-');
            version.push_str(&digest(text.as_bytes())[..12]);
        }
        version
    }

    /// The option of the route that the source is.
    pub fn source_option(&self) -> Option<(&'static str, &str)> {
        let built_in = builtin::find(self.built_in.as_deref()?).ok()?;
        Some((built_in.source?.option, self.source.as_deref()?))
    }

    /// Bytes of its texts.
    pub fn bytes(&self) -> u64 {
        [&self.route_file, &self.source].into_iter().flatten().map(|text| text.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_component_with_its_texts() {
        let version = |route_file: Option<&str>, source: Option<&str>| {
            let [route_file, source] = [route_file, source].map(|text| text.map(str::to_owned));
            RouteDefinition { built_in: None, route_file, source }.version("abc")
        };
        assert_eq!(version(None, None), "abc");
        assert_ne!(version(Some("x = 1"), None), version(Some("x = 2"), None));
        assert_ne!(version(Some("x = 1"), Some("a")), version(Some("x = 1"), Some("b")));
        assert_ne!(version(None, Some("a")), version(None, None));
    }
}

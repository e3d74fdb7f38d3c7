//! The guests folder: its files, and the stamps by which changes are seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::digest;
use crate::error::RolloutError;
use crate::limits::{CASES_BYTES_MAX, ROUTE_FILE_BYTES_MAX};
use crate::tenant_folder::TenantFolder;
use tidegate_core::file_stamp::FileStamp;
use tidegate_core::route_key::{ANY, DEFAULT, RouteKey, is_file_name};

/// A mark that tells one state of a route's three files from another: component, route file, cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CandidateStamps([Option<FileStamp>; 3]);

impl CandidateStamps {
    pub fn component_bytes(&self) -> u64 {
        self.0[0].map_or(0, |stamp| stamp.bytes())
    }

    pub fn read(component: &Path) -> Self {
        Self([
            FileStamp::read(component).ok(),
            FileStamp::read(&component.with_extension("toml")).ok(),
            FileStamp::read(&component.with_extension("cases.jsonl")).ok(),
        ])
    }
}

/// The name of the component of a route.
pub fn component_name(stem: &str) -> String {
    format!("{stem}.wasm")
}

/// The name of the cases of a route.
pub fn cases_name(stem: &str) -> String {
    format!("{stem}.cases.jsonl")
}

/// True if somebody may still be writing to this very file. Half of a component is never a whole
/// one, but judging it would be for nothing.
pub fn is_being_written(component: &Path) -> bool {
    let modified = fs::metadata(component).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age < Duration::from_millis(100))
}

/// Every component in the folder's folders, and the folders among them that cannot be read: one
/// tenant's is no other's concern.
///
/// # Errors
/// The folder itself cannot be read.
pub fn files(folder: &Path) -> std::io::Result<(BTreeMap<RouteKey, PathBuf>, Vec<String>)> {
    let (mut files, mut unreadable) = (BTreeMap::new(), Vec::new());
    for folder in fs::read_dir(folder)? {
        let folder = folder?;
        let (Ok(tenant), true) = (folder.file_name().into_string(), folder.path().is_dir()) else {
            continue;
        };
        if tenant.starts_with('.') {
            continue;
        }
        let Ok(inside) = fs::read_dir(folder.path()) else {
            unreadable.push(tenant);
            continue;
        };
        for file in inside {
            let path = file?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let (Some("wasm"), Some(stem)) = (path.extension().and_then(|e| e.to_str()), stem)
                && !stem.starts_with('.')
            {
                files.insert((tenant.clone(), stem.to_owned()), path.clone());
            }
        }
    }
    Ok((files, unreadable))
}

/// True if a place is one that a route may have: `_default`, `_any`, or a name as `file_name` makes
/// it.
pub fn is_place((tenant, stem): &RouteKey) -> bool {
    (tenant == DEFAULT || is_file_name(tenant)) && (stem == ANY || is_file_name(stem))
}

/// A component and the files beside it, as they wait to be evaluated.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub component: Vec<u8>,
    pub digest: String,
    pub rules: Option<String>,
    pub cases: Option<String>,
}

impl Candidate {
    /// Reads a component and the files beside it, none larger than it may be, or outside of its tenant's folder.
    ///
    /// # Errors
    /// A file cannot be read, is too large, or a link leads out.
    pub fn read(guests: &Path, (tenant, stem): &RouteKey, bytes_max: u64) -> Result<Self, RolloutError> {
        let folder = TenantFolder::open(guests, tenant)?;
        let component = folder.read(&component_name(stem), bytes_max)?;
        Self::beside(&folder, stem, component)
    }

    /// A component for a place where nothing lies.
    pub fn alone(component: Vec<u8>) -> Self {
        Self { digest: digest(&component), component, rules: None, cases: None }
    }

    /// A component that came another way, with the files that lie at its place.
    ///
    /// # Errors
    /// The errors of `read`.
    pub fn beside(folder: &TenantFolder, stem: &str, component: Vec<u8>) -> Result<Self, RolloutError> {
        let digest = digest(&component);
        let rules = text(folder, &format!("{stem}.toml"), ROUTE_FILE_BYTES_MAX)?;
        let cases = text(folder, &cases_name(stem), CASES_BYTES_MAX)?;
        Ok(Self { component, digest, rules, cases })
    }

    /// The component's digest, with that of the route's file where there is one.
    pub fn version(&self) -> String {
        version(&self.digest, self.rules.as_deref())
    }

    pub fn cases_digest(&self) -> Option<String> {
        self.cases.as_ref().map(|cases| digest(cases.as_bytes()))
    }
}

/// The name of a component with a route file.
pub fn version(component: &str, rules: Option<&str>) -> String {
    match rules {
        Some(rules) => format!("{component}-{}", &digest(rules.as_bytes())[..12]),
        None => component.to_owned(),
    }
}

fn text(folder: &TenantFolder, name: &str, most: u64) -> Result<Option<String>, RolloutError> {
    let bytes = match folder.read(name, most) {
        Ok(bytes) => bytes,
        Err(RolloutError::Unreadable(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(RolloutError::RouteFile(format!("{name}: {error}"))),
    };
    let text =
        String::from_utf8(bytes).map_err(|_| RolloutError::RouteFile(format!("{name} is not UTF-8")))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_no_file_could_have_are_none() {
        let route_key = |tenant: &str, stem: &str| is_place(&(tenant.to_owned(), stem.to_owned()));
        assert!(route_key("acme", "boiler"));
        assert!(route_key("_default", "_any"));
        assert!(route_key("%5Fdefault", "a%2Fb"));
        for (tenant, stem) in [
            ("_other", "x"),
            ("acme", "_x"),
            ("..", "x"),
            ("acme", "a/b"),
            ("", "x"),
            ("acme", ""),
            ("a%zz", "x"),
        ] {
            assert!(!route_key(tenant, stem), "{tenant}/{stem}");
        }
    }

    #[test]
    fn a_version_is_a_component_with_its_route_file() {
        assert_eq!(version("abc", None), "abc");
        assert_ne!(version("abc", Some("x = 1")), version("abc", Some("x = 2")));
    }
}

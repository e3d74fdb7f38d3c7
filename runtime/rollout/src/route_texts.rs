//! The texts of a place in the folder, for somebody who edits them: a route file, and the source of a built-in decoder.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::builtin;
use crate::candidate;
use crate::error::RolloutError;
use crate::folder::route_file_name;
use crate::limits::ROUTE_FILE_BYTES_MAX;
use crate::store::GuestStore;
use crate::tenant_folder::TenantFolder;
use tidegate_core::route_key::RouteKey;

/// The texts that lie at a place, and the version that serves there.
#[derive(Clone, Debug, Serialize)]
pub struct RouteTexts {
    /// The extension of the file that makes the route: `wasm`, `toml`, or that of a source.
    pub file: String,
    /// The name of the built-in decoder that serves.
    pub built_in: Option<String>,
    /// The version that serves; `null`: none does.
    pub version: Option<String>,
    /// Texts by their extensions. A component has at most its route file.
    pub texts: BTreeMap<String, String>,
}

impl GuestStore {
    /// The texts of a place, as they lie in the folder: also of a version that may not serve.
    ///
    /// # Errors
    /// Nothing lies there, or it cannot be read.
    pub fn texts(&self, route_key: &RouteKey) -> Result<RouteTexts, RolloutError> {
        let (file, built_in, version) = {
            let entries = self.entries.lock();
            let entry = entries.get(route_key).ok_or(RolloutError::NotThere)?;
            let version = entry.serving.as_ref().map(|route| route.version.id.clone());
            let record = version.as_deref().and_then(|version| entry.record.find(version));
            let file = entry.path.extension().unwrap_or_default().to_string_lossy().into_owned();
            (file, record.and_then(|record| record.built_in.clone()), version)
        };
        let (tenant, stem) = route_key;
        let folder = TenantFolder::open(&self.folder, tenant)?;
        let route_file = ("toml", route_file_name(stem), ROUTE_FILE_BYTES_MAX);
        let sources = builtin::sources()
            .map(|source| (source.extension, format!("{stem}.{}", source.extension), source.bytes_max));
        let mut texts = BTreeMap::new();
        for (extension, name, most) in std::iter::once(route_file).chain(sources) {
            if let Some(text) = candidate::text(&folder, &name, most)? {
                texts.insert(extension.to_owned(), text);
            }
        }
        Ok(RouteTexts { file, built_in, version, texts })
    }
}

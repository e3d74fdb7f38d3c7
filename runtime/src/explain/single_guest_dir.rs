//! A routing folder for one guest under test.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tempfile::TempDir;

use crate::codecs::script_files;
use crate::core::route_key::{ANY, DEFAULT};
use crate::rollout::builtin;

/// The folder; it is deleted with its last owner.
#[derive(Clone, Debug)]
pub struct SingleGuestDir(Arc<TempDirGuard>);

#[derive(Debug)]
struct TempDirGuard(TempDir);

impl SingleGuestDir {
    /// A folder whose only route is this guest: in the guests folder, at the place that its own
    /// folder and name give; elsewhere, for every tenant.
    pub fn with_route(guest: &Path, guests: &Path) -> anyhow::Result<Self> {
        let shown = guest.display();
        let guest = std::fs::canonicalize(guest).with_context(|| format!("no such decoder: {shown}"))?;
        let stem = guest.file_name().context("a guest has a name")?;
        let parent = guest.parent().context("a guest lies in a folder")?;
        let in_place = std::fs::canonicalize(guests).is_ok_and(|guests| parent.parent() == Some(&*guests));
        let tenant = parent.file_name().filter(|_| in_place).unwrap_or("_default".as_ref());
        // A name that nobody can foresee, and mode 0700.
        let root = tempfile::Builder::new().prefix("tidegate-test-").tempdir()?;
        let place = root.path().join(tenant);
        std::fs::create_dir(&place)?;
        let scripts = if guest.is_dir() { guest.clone() } else { guest.with_extension("") };
        if script_files::is_script(&scripts) {
            // A file of this name wins, and is copied over it.
            std::fs::write(place.join(stem).with_extension("js"), script_files::read_folder(&scripts)?)?;
        }
        let sources = builtin::sources().map(|source| source.extension);
        for extension in ["wasm", "toml"].into_iter().chain(sources) {
            let file = guest.with_extension(extension);
            if file.exists() {
                std::fs::copy(&file, place.join(stem).with_extension(extension))?;
            }
        }
        Ok(Self(Arc::new(TempDirGuard(root))))
    }

    /// A folder whose only route is this guest, or this route file of a built-in decoder, for every tenant and message
    /// type.
    pub fn for_any(guest: &Path, route_file: Option<&Path>) -> anyhow::Result<Self> {
        let shown = guest.display();
        let extension = match guest.is_dir() {
            true => "js".as_ref(),
            false => guest.extension().with_context(|| format!("{shown} is no decoder"))?,
        };
        let root = tempfile::Builder::new().prefix("tidegate-test-").tempdir()?;
        let place = root.path().join(DEFAULT);
        std::fs::create_dir(&place)?;
        let place = place.join(ANY);
        if guest.is_dir() {
            std::fs::write(place.with_extension(extension), script_files::read_folder(guest)?)?;
        } else {
            std::fs::copy(guest, place.with_extension(extension))
                .with_context(|| format!("no such decoder: {shown}"))?;
        }
        if let Some(route_file) = route_file {
            std::fs::copy(route_file, place.with_extension("toml"))?;
        }
        Ok(Self(Arc::new(TempDirGuard(root))))
    }

    /// A folder whose only route is a built-in decoder without options, for every tenant and message type.
    pub fn with_built_in(name: &str) -> anyhow::Result<Self> {
        builtin::find(name).map_err(|why| anyhow::anyhow!(why))?;
        let root = tempfile::Builder::new().prefix("tidegate-test-").tempdir()?;
        let place = root.path().join(DEFAULT);
        std::fs::create_dir(&place)?;
        std::fs::write(place.join(format!("{ANY}.toml")), format!("decoder = {name:?}\n"))?;
        Ok(Self(Arc::new(TempDirGuard(root))))
    }

    pub fn path(&self) -> &Path {
        self.0.0.path()
    }
}

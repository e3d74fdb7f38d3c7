//! The guests folder: its files, and the stamps by which changes are seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::builtin;
use crate::limits::{SCRIPT_FOLDER_DEPTH_MAX, SCRIPT_FOLDER_ENTRIES_MAX};
use crate::script_files;
use tidegate_core::file_stamp::FileStamp;
use tidegate_core::route_key::{ANY, DEFAULT, RouteKey, is_file_name};

/// A mark that tells one state of a route's files from another: component, route file, cases, and without a
/// component the source of a built-in decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CandidateStamps([Option<FileStamp>; 4]);

impl CandidateStamps {
    pub fn component_bytes(&self) -> u64 {
        self.0[0].map_or(0, |stamp| stamp.bytes())
    }

    /// The stamps of the route whose file this is.
    pub fn read(file: &Path) -> Self {
        let stamp = |extension: &str| FileStamp::read(&file.with_extension(extension)).ok();
        let component = stamp("wasm");
        let source = || {
            let folder = || {
                let path = file.with_extension("");
                FileStamp::read_folder(&path, SCRIPT_FOLDER_ENTRIES_MAX, SCRIPT_FOLDER_DEPTH_MAX)
            };
            builtin::sources().find_map(|source| stamp(source.extension)).or_else(folder)
        };
        let source = if component.is_none() { source() } else { None };
        Self([component, stamp("toml"), stamp("cases.jsonl"), source])
    }
}

/// The extension of scripts, which may be folders too.
pub const SCRIPT_EXTENSION: &str = "js";

/// The name of the component of a route.
pub fn component_name(stem: &str) -> String {
    format!("{stem}.wasm")
}

/// The name of the route file of a route.
pub fn route_file_name(stem: &str) -> String {
    format!("{stem}.toml")
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

/// The files of a scan.
#[derive(Debug, Default)]
pub struct FolderFiles {
    /// Routes with a component of their own, and those with the source of a built-in decoder.
    pub routes: BTreeMap<RouteKey, PathBuf>,
    /// Route files without either. Some are routes of built-in decoders.
    pub lone_route_files: Vec<RouteKey>,
    /// Folders that cannot be read: one tenant's is no other's concern.
    pub unreadable: Vec<String>,
}

/// The files in the folder's folders.
///
/// # Errors
/// The folder itself cannot be read.
pub fn files(folder: &Path) -> std::io::Result<FolderFiles> {
    let mut files = FolderFiles::default();
    for folder in fs::read_dir(folder)? {
        let folder = folder?;
        let (Ok(tenant), true) = (folder.file_name().into_string(), folder.path().is_dir()) else {
            continue;
        };
        if tenant.starts_with('.') {
            continue;
        }
        let Ok(inside) = fs::read_dir(folder.path()) else {
            files.unreadable.push(tenant);
            continue;
        };
        let (mut sources, mut route_files, mut scripts) = (Vec::new(), Vec::new(), Vec::new());
        for file in inside {
            let file = file?;
            let path = file.path();
            if let Some(stem) = script_folder(&file) {
                // As if it were one file, so that all files of the route are beside it.
                let name = format!("{stem}.{SCRIPT_EXTENSION}");
                scripts.push(((tenant.clone(), stem), path.with_file_name(name)));
                continue;
            }
            let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| !stem.starts_with('.'));
            let (Some(stem), Some(extension)) = (stem, path.extension().and_then(|e| e.to_str())) else {
                continue;
            };
            let route_key = (tenant.clone(), stem.to_owned());
            match extension {
                "wasm" => _ = files.routes.insert(route_key, path),
                "toml" => route_files.push(route_key),
                extension if builtin::of_extension(extension).is_some() => sources.push((route_key, path)),
                _ => {}
            }
        }
        for (route_key, path) in sources.into_iter().chain(scripts) {
            files.routes.entry(route_key).or_insert(path);
        }
        route_files.retain(|route_key| !files.routes.contains_key(route_key));
        files.lone_route_files.append(&mut route_files);
    }
    Ok(files)
}

/// The name of a folder that is a script in several files.
fn script_folder(entry: &fs::DirEntry) -> Option<String> {
    // A link would be another place.
    entry.file_type().ok().filter(fs::FileType::is_dir)?;
    let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'))?;
    script_files::ENTRIES.iter().any(|script| entry.path().join(script).is_file()).then_some(name)
}

/// True if a place is one that a route may have: `_default`, `_any`, or a name as `file_name` makes
/// it.
pub fn is_place((tenant, stem): &RouteKey) -> bool {
    (tenant == DEFAULT || is_file_name(tenant)) && (stem == ANY || is_file_name(stem))
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
    fn a_route_has_a_component_or_a_route_file() {
        let guests = tempfile::TempDir::new().unwrap();
        fs::create_dir(guests.path().join("acme")).unwrap();
        for file in
            ["a.wasm", "a.toml", "b.toml", "c.cases.jsonl", "d.txt", ".e.toml", "f.1.wasm", "f.1.toml"]
        {
            fs::write(guests.path().join("acme").join(file), "").unwrap();
        }
        let files = files(guests.path()).unwrap();
        let stems: Vec<_> = files.routes.keys().map(|(_, stem)| stem.as_str()).collect();
        assert_eq!(stems, ["a", "f.1"]);
        assert_eq!(files.lone_route_files, [("acme".to_owned(), "b".to_owned())]);

        // A folder with a script in it is one, unless a file of the same name is there.
        for folder in ["b", "g.2", "h", ".i"] {
            let folder = guests.path().join("acme").join(folder);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(if folder.ends_with("h") { "other.js" } else { "index.js" }), "").unwrap();
        }
        let files = super::files(guests.path()).unwrap();
        let stems: Vec<_> = files.routes.keys().map(|(_, stem)| stem.as_str()).collect();
        assert_eq!(stems, ["a", "b", "f.1", "g.2"]);
        assert!(files.lone_route_files.is_empty());
        let path = &files.routes[&("acme".to_owned(), "g.2".to_owned())];
        let before = CandidateStamps::read(path);
        assert_ne!(before, CandidateStamps::default());
        fs::write(guests.path().join("acme/g.2/lib.js"), "x").unwrap();
        assert_ne!(CandidateStamps::read(path), before);
    }
}

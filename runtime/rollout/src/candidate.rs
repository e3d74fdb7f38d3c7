//! A version as it lies in the guests folder: a component, and the files beside it.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::Path;

use crate::builtin::{self, BuiltIn};
use crate::definition::RouteDefinition;
use crate::digest::digest;
use crate::error::RolloutError;
use crate::folder::{SCRIPT_EXTENSION, cases_name, component_name, route_file_name};
use crate::limits::{CASES_BYTES_MAX, ROUTE_FILE_BYTES_MAX, SCRIPT_BYTES_MAX};
use crate::put_request::PutFile;
use crate::route_file;
use crate::script_files::{self, ENTRIES};
use crate::tenant_folder::TenantFolder;
use tidegate_core::route_key::RouteKey;

/// A component and the files beside it, as they wait to be evaluated.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub component: Cow<'static, [u8]>,
    pub digest: String,
    pub definition: RouteDefinition,
    pub cases: Option<String>,
}

impl Candidate {
    /// Reads the files of a route, none larger than it may be, or outside of its tenant's folder. Without a component
    /// of its own, the route is that of a built-in decoder.
    ///
    /// # Errors
    /// A file cannot be read, is too large, or a link leads out; there is no such built-in decoder.
    pub fn read(guests: &Path, (tenant, stem): &RouteKey, bytes_max: u64) -> Result<Self, RolloutError> {
        let folder = TenantFolder::open(guests, tenant)?;
        match folder.read(&component_name(stem), bytes_max) {
            Ok(component) => Self::beside(&folder, stem, component),
            Err(RolloutError::Unreadable(error)) if error.kind() == ErrorKind::NotFound => {
                let route_file = text(&folder, &route_file_name(stem), ROUTE_FILE_BYTES_MAX)?;
                match built_in_of(&folder, stem, route_file.as_deref())? {
                    Some(built_in) => Self::built_in(Some(&folder), stem, built_in, route_file),
                    None => Err(RolloutError::Unreadable(error)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// A file that came another way, with those that lie at its place. `folder`: None where there is none yet.
    ///
    /// # Errors
    /// The errors of `read`; a route file that names no built-in decoder, or another than the source is for.
    pub fn put(folder: Option<&TenantFolder>, stem: &str, file: PutFile) -> Result<Self, RolloutError> {
        let refused = |why: String| Err(RolloutError::RouteFile(format!("the route's TOML file: {why}")));
        match file {
            PutFile::Component(component) => match folder {
                Some(folder) => Self::beside(folder, stem, component),
                None => Ok(Self::alone(component)),
            },
            PutFile::RouteFile(text) => match route_file::decoder(&text).map_err(RolloutError::RouteFile)? {
                Some(name) => match builtin::find(&name) {
                    Ok(built_in) => Self::built_in(folder, stem, built_in, Some(text)),
                    Err(why) => refused(why),
                },
                None => refused(format!(
                    "it names no decoder; expected decoder = \"NAME\" with one of {}",
                    builtin::names()
                )),
            },
            PutFile::Source(built_in, _, source) => {
                let route_file = read_text(folder, &route_file_name(stem), ROUTE_FILE_BYTES_MAX)?;
                let named = route_file.as_deref().map(route_file::decoder).transpose();
                let named = named.map_err(RolloutError::RouteFile)?.flatten();
                if named.as_deref().is_some_and(|name| name != built_in.name) {
                    return refused(format!("it names another decoder: expected {:?}", built_in.name));
                }
                let mut candidate = Self::built_in(folder, stem, built_in, route_file)?;
                candidate.definition.source = Some(source);
                Ok(candidate)
            }
        }
    }

    /// A component for a place where nothing lies.
    pub fn alone(component: Vec<u8>) -> Self {
        let digest = digest(&component);
        Self { digest, component: component.into(), definition: RouteDefinition::default(), cases: None }
    }

    /// A component with the files that lie at its place.
    fn beside(folder: &TenantFolder, stem: &str, component: Vec<u8>) -> Result<Self, RolloutError> {
        let route_file = text(folder, &route_file_name(stem), ROUTE_FILE_BYTES_MAX)?;
        let definition = RouteDefinition { route_file, ..RouteDefinition::default() };
        Ok(Self {
            definition,
            cases: text(folder, &cases_name(stem), CASES_BYTES_MAX)?,
            ..Self::alone(component)
        })
    }

    /// A built-in decoder with a route file, and the files that lie at its place.
    fn built_in(
        folder: Option<&TenantFolder>,
        stem: &str,
        built_in: &'static BuiltIn,
        route_file: Option<String>,
    ) -> Result<Self, RolloutError> {
        let source = match built_in.source {
            Some(file) => match read_text(folder, &format!("{stem}.{}", file.extension), file.bytes_max)? {
                None if file.extension == SCRIPT_EXTENSION => script_in_folder(folder, stem)?,
                source => source,
            },
            None => None,
        };
        let definition = RouteDefinition { built_in: Some(built_in.name.to_owned()), route_file, source };
        Ok(Self {
            component: built_in.component.into(),
            digest: built_in.digest().to_owned(),
            definition,
            cases: read_text(folder, &cases_name(stem), CASES_BYTES_MAX)?,
        })
    }

    /// The component's digest, with those of the texts beside it.
    pub fn version(&self) -> String {
        self.definition.version(&self.digest)
    }

    /// The extension of the file that makes the route.
    pub fn extension(&self) -> &'static str {
        let RouteDefinition { built_in, route_file, .. } = &self.definition;
        let source = built_in.as_deref().and_then(|name| builtin::find(name).ok()?.source);
        match (built_in, route_file, source) {
            (None, ..) => "wasm",
            (Some(_), None, Some(source)) => source.extension,
            (Some(_), ..) => "toml",
        }
    }

    pub fn cases_digest(&self) -> Option<String> {
        self.cases.as_ref().map(|cases| digest(cases.as_bytes()))
    }

    /// Bytes that a copy of it takes. A built-in component is kept once for all.
    pub fn own_bytes(&self) -> u64 {
        let component = if self.definition.built_in.is_some() { 0 } else { self.component.len() as u64 };
        component + self.definition.bytes()
    }
}

/// The built-in decoder that a route file names, or that the source file beside it is for.
fn built_in_of(
    folder: &TenantFolder,
    stem: &str,
    route_file: Option<&str>,
) -> Result<Option<&'static BuiltIn>, RolloutError> {
    let named = route_file.map(route_file::decoder).transpose().map_err(RolloutError::RouteFile)?.flatten();
    if let Some(name) = named {
        let named = builtin::find(&name).map_err(|why| {
            RolloutError::RouteFile(format!("the route's TOML file: {why}, or {stem}.wasm beside it"))
        });
        return named.map(Some);
    }
    let source =
        builtin::sources().find(|source| folder.bytes_of(&format!("{stem}.{}", source.extension)).is_some());
    Ok(match source {
        Some(source) => builtin::of_extension(source.extension),
        None if script_entry(folder, stem)?.is_some() => builtin::of_extension(SCRIPT_EXTENSION),
        None => None,
    })
}

/// The path of the script in the folder of a route.
///
/// # Errors
/// The folder, or the script in it, is a link.
pub fn script_entry(folder: &TenantFolder, stem: &str) -> Result<Option<String>, RolloutError> {
    for entry in ENTRIES {
        let path = format!("{stem}/{entry}");
        if folder.read_below(&path, SCRIPT_BYTES_MAX).map_err(|error| in_folder(&path, &error))?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The script in the folder of a route, with all files that it requires.
fn script_in_folder(folder: Option<&TenantFolder>, stem: &str) -> Result<Option<String>, RolloutError> {
    let Some(folder) = folder else { return Ok(None) };
    let Some(entry) = script_entry(folder, stem)? else { return Ok(None) };
    let inside = format!("{stem}/");
    let entry = entry.strip_prefix(&inside).unwrap_or(&entry);
    let packed = script_files::pack(entry, |path| {
        let path = format!("{inside}{path}");
        match folder.read_below(&path, SCRIPT_BYTES_MAX) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => String::from_utf8(bytes).map(Some).map_err(|_| format!("{path} is not UTF-8")),
            Err(error) => Err(in_folder(&path, &error).to_string()),
        }
    });
    packed.map_err(RolloutError::RouteFile)
}

fn in_folder(path: &str, error: &RolloutError) -> RolloutError {
    RolloutError::RouteFile(format!("{path}: {error}; a script in a folder has no links"))
}

fn read_text(folder: Option<&TenantFolder>, name: &str, most: u64) -> Result<Option<String>, RolloutError> {
    folder.map_or(Ok(None), |folder| text(folder, name, most))
}

/// The text of a file; None: there is no such file.
///
/// # Errors
/// It cannot be read, is too long, or no text.
pub(crate) fn text(folder: &TenantFolder, name: &str, most: u64) -> Result<Option<String>, RolloutError> {
    let bytes = match folder.read(name, most) {
        Ok(bytes) => bytes,
        Err(RolloutError::Unreadable(error)) if error.kind() == ErrorKind::NotFound => {
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
    use std::fs;

    fn read(files: &[(&str, &str)]) -> Result<Candidate, RolloutError> {
        let guests = tempfile::TempDir::new().unwrap();
        fs::create_dir(guests.path().join("acme")).unwrap();
        for (name, content) in files {
            fs::write(guests.path().join("acme").join(name), content).unwrap();
        }
        Candidate::read(guests.path(), &("acme".into(), "meter".into()), 1 << 20)
    }

    #[test]
    fn a_route_file_alone_is_a_built_in_decoder_and_a_component_beside_it_wins() {
        let route_file = ("meter.toml", "decoder = \"json\"\n");
        let cases = ("meter.cases.jsonl", "{}");
        let candidate = read(&[route_file, cases]).unwrap();
        assert_eq!(candidate.definition.built_in.as_deref(), Some("json"));
        assert_eq!(candidate.component, builtin::find("json").unwrap().component);
        assert_eq!(candidate.digest, digest(&candidate.component));
        assert_eq!(candidate.cases.as_deref(), Some("{}"));
        assert_eq!(candidate.own_bytes(), route_file.1.len() as u64);
        let own = read(&[route_file, ("meter.wasm", "own")]).unwrap();
        assert_eq!((own.definition.built_in.as_deref(), &*own.component), (None, &b"own"[..]));
        assert_eq!(own.definition.route_file.as_deref(), Some(route_file.1));
    }

    #[test]
    fn a_route_file_that_names_no_decoder_is_no_route_and_an_unknown_one_is_named() {
        let error = read(&[("meter.toml", "deadline_ms = 5\n")]).unwrap_err();
        assert!(matches!(&error, RolloutError::Unreadable(error) if error.kind() == ErrorKind::NotFound));
        let error = read(&[("meter.toml", "decoder = \"jsn\"\n")]).unwrap_err().to_string();
        assert!(error.contains("decoder = \"jsn\"") && error.contains("passthrough"), "{error}");
        assert!(error.contains("meter.wasm"), "{error}");
        let error = read(&[("meter.toml", "decoder = 5\n")]).unwrap_err().to_string();
        assert!(error.contains("decoder: expected the name of a built-in decoder"), "{error}");
        let error = read(&[("meter.toml", "\ndecoder = \n")]).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_script_in_a_folder_goes_with_the_files_that_it_requires_and_a_file_of_its_name_wins() {
        let guests = tempfile::TempDir::new().unwrap();
        let acme = guests.path().join("acme");
        fs::create_dir_all(acme.join("up/lib")).unwrap();
        for (path, text) in [
            ("index.js", "const a = require('./lib/a');"),
            ("lib/a.js", "exports.x = require('../units.json');"),
            ("units.json", "{}"),
            ("examples.json", "[]"),
        ] {
            fs::write(acme.join("up").join(path), text).unwrap();
        }
        fs::write(acme.join("up.toml"), "[options]\nport = 2\n").unwrap();
        let key = ("acme".to_owned(), "up".to_owned());
        let read = || Candidate::read(guests.path(), &key, 1 << 20);
        let first = read().unwrap();
        assert_eq!((first.definition.built_in.as_deref(), first.extension()), (Some("js"), "toml"));
        let source: serde_json::Value =
            serde_json::from_str(first.definition.source.as_deref().unwrap()).unwrap();
        let files: Vec<_> = source["files"].as_object().unwrap().keys().collect();
        assert_eq!((source["entry"].as_str().unwrap(), files.len()), ("index.js", 3), "{files:?}");
        fs::write(acme.join("up/lib/a.js"), "exports.x = 1;").unwrap();
        assert_ne!(read().unwrap().version(), first.version());
        // A link out of the folder is refused, whatever it leads to.
        fs::create_dir(guests.path().join("globex")).unwrap();
        fs::write(guests.path().join("globex/secret.js"), "secret").unwrap();
        fs::remove_file(acme.join("up/lib/a.js")).unwrap();
        std::os::unix::fs::symlink("../../../globex/secret.js", acme.join("up/lib/a.js")).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("up/lib/a.js") && error.contains("no links"), "{error}");
        fs::write(acme.join("up.js"), "function decodeUplink() {}").unwrap();
        assert_eq!(read().unwrap().definition.source.as_deref(), Some("function decodeUplink() {}"));
    }
}

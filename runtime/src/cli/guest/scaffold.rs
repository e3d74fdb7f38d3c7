//! The folder of a new decoder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::guest::templates::{Language, Template, files};
use crate::cli::{BadUsage, Exit};

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// Writes a folder with a decoder that works, its cases, and what to do next.
pub fn new(name: &str, language: Language, dir: Option<&Path>, sdk: Option<&Path>) -> anyhow::Result<Exit> {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !plain {
        let allowed = "lower-case letters, digits and -, a letter first, at most 64";
        return Err(BadUsage(format!("invalid name {name:?}: expected {allowed}")).into());
    }
    let folder = dir.map_or_else(|| PathBuf::from(name), Path::to_owned);
    if folder.exists() {
        return Err(BadUsage(format!("{} exists already", folder.display())).into());
    }
    if language != Language::Rust && sdk.is_some() {
        return Err(BadUsage("--sdk is for --lang rust: others contain their SDK".into()).into());
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let names =
        Names::new(name, if language == Language::Rust { rust_sdk(&folder, sdk)? } else { String::new() });
    for Template { path, text } in files(language) {
        let path = folder.join(names.fill(path));
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let content = match std::str::from_utf8(&text) {
            Ok(text) => names.fill(text).into_bytes(),
            Err(_) => text.into_owned(),
        };
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{} contains a working decoder; its README.md says how to build and serve it", folder.display());
    Ok(Exit::Success)
}

/// The words that templates have places for.
struct Names {
    name: String,
    /// The name as one word of a programming language.
    module: String,
    decoder: String,
    sdk: String,
}

impl Names {
    fn new(name: &str, sdk: String) -> Self {
        let capitalised = |part: &str| {
            let mut letters = part.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect::<String>()
        };
        Self {
            name: name.to_owned(),
            module: name.replace('-', "_"),
            decoder: name.split('-').map(capitalised).collect(),
            sdk,
        }
    }

    fn fill(&self, template: &str) -> String {
        // `${name}` is JavaScript's own.
        template
            .replace("${name}", "${\u{0}}")
            .replace("{name}", &self.name)
            .replace("${\u{0}}", "${name}")
            .replace("{module}", &self.module)
            .replace("{Decoder}", &self.decoder)
            .replace("{sdk}", &self.sdk)
    }
}

/// The place of the SDK for Rust, as Cargo.toml names it.
fn rust_sdk(folder: &Path, sdk: Option<&Path>) -> anyhow::Result<String> {
    match sdk.map(Path::to_owned).or_else(|| checkout_around(folder)) {
        Some(path) => {
            let path =
                fs::canonicalize(&path).with_context(|| format!("the SDK is not at {}", path.display()))?;
            Ok(format!("path = {:?}", path.display().to_string()))
        }
        None => Ok(format!("git = {REPOSITORY:?}")),
    }
}

/// The SDK of the checkout that a folder lies in.
fn checkout_around(folder: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(folder).ok()?;
    folder.ancestors().map(|around| around.join("guest-sdk")).find(|sdk| sdk.join("Cargo.toml").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_decoder_in_another_language_needs_nothing_outside_of_its_folder() {
        for language in Language::value_variants().iter().filter(|language| **language != Language::Rust) {
            let folder = tempfile::TempDir::new().unwrap();
            let folder = folder.path().join("hot-boiler");
            new("hot-boiler", *language, Some(&folder), None).unwrap();
            for Template { path, .. } in files(*language) {
                let names = Names::new("hot-boiler", String::new());
                let Ok(text) = fs::read_to_string(folder.join(names.fill(path))) else {
                    assert!(path.ends_with(".o"), "{path}");
                    continue;
                };
                assert!(!text.contains("../.."), "{path}");
                let left = text.replace("${name}", "");
                assert!(!left.contains("{name}") && !left.contains("{module}"), "{path}");
                assert!(!text.contains("\"flat\""), "{path}");
            }
            assert!(folder.join("hot-boiler.cases.jsonl").exists() && folder.join("README.md").exists());
            let wit = fs::read_to_string(folder.join("wit/decoder.wit")).unwrap();
            assert!(wit.contains("tidegate:ingest@1.0.0"), "{wit}");
        }
    }

    #[test]
    fn a_tool_that_imports_all_that_the_world_names_is_given_no_state() {
        for language in [Language::Js, Language::Python] {
            let folder = tempfile::TempDir::new().unwrap();
            let folder = folder.path().join("boiler");
            new("boiler", language, Some(&folder), None).unwrap();
            let wit = fs::read_to_string(folder.join("wit/decoder.wit")).unwrap();
            assert!(!wit.contains("    import state;"), "{wit}");
        }
    }

    #[test]
    fn a_name_that_is_no_word_becomes_one() {
        let names = Names::new("hot-boiler", "path = \"x\"".into());
        assert_eq!(
            names.fill("{name} {module} {Decoder} {sdk} ${name}"),
            "hot-boiler hot_boiler HotBoiler path = \"x\" ${name}"
        );
    }
}

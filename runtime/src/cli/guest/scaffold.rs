//! A new decoder's crate, and the component that becomes of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use wit_component::ComponentEncoder;

use crate::cli::{BadUsage, Exit};

const MANIFEST: &str = include_str!("template/Cargo.toml.txt");

const DECODER: &str = include_str!("template/lib.rs.txt");

const CASES: &str = include_str!("template/cases.jsonl.txt");

const README: &str = include_str!("template/README.md.txt");

/// The first bytes of a core module, and of a component.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// The language of a new decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    Rust,
    Js,
}

/// The files of a new decoder in JavaScript. Its folder needs nothing outside of it.
const JS_FILES: [(&str, &str); 9] = [
    ("package.json", include_str!("template/js/package.json.txt")),
    ("package-lock.json", include_str!("../../../../guests/js/flat/package-lock.json")),
    ("build.mjs", include_str!("../../../../guests/js/flat/build.mjs")),
    ("src/tidegate.js", include_str!("../../../../guests/js/flat/src/tidegate.js")),
    ("src/decoder.js", include_str!("template/js/decoder.js.txt")),
    ("test/decoder.test.mjs", include_str!("template/js/test.mjs.txt")),
    ("wit/decoder.wit", include_str!("../../../../wit/tidegate-ingest-1.0.0/decoder.wit")),
    ("README.md", include_str!("template/js/README.md.txt")),
    (".gitignore", "node_modules/\n*.wasm\n"),
];

const JS_CASES: &str = include_str!("template/js/cases.jsonl.txt");

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
    match language {
        Language::Rust => new_rust(name, &folder, sdk)?,
        Language::Js if sdk.is_some() => {
            return Err(BadUsage(
                "--sdk is for --lang rust: a decoder in JavaScript contains its SDK".into(),
            )
            .into());
        }
        Language::Js => new_js(name, &folder)?,
    }
    println!("{} contains a working decoder; its README.md says how to build and serve it", folder.display());
    Ok(Exit::Success)
}

fn new_js(name: &str, folder: &Path) -> anyhow::Result<()> {
    let cases = format!("{name}.cases.jsonl");
    for (file, template) in JS_FILES.into_iter().chain([(&*cases, JS_CASES)]) {
        let path = folder.join(file);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(path, js_file(file, template, name))?;
    }
    Ok(())
}

/// The content of a file: of the example in the repository, or of a template.
fn js_file(file: &str, template: &str, name: &str) -> String {
    match file {
        "package-lock.json" => template.replace("\"name\": \"flat\"", &format!("\"name\": \"{name}\"")),
        "build.mjs" => template
            .replace("../../../wit/tidegate-ingest-0.1.0", "wit")
            .replace("flat.wasm", &format!("{name}.wasm"))
            .replace(
                "const { component,",
                "console.error(\"makes the component, in about 20 s\");\nconst { component,",
            ),
        // The tools import all that the world names, and a decoder that imports state pays for it.
        "wit/decoder.wit" => {
            template.replace("    import state;", "    // Values between messages: import state;")
        }
        "src/tidegate.js" | ".gitignore" => template.to_owned(),
        _ => template.replace("{name}", name),
    }
}

fn new_rust(name: &str, folder: &Path, sdk: Option<&Path>) -> anyhow::Result<()> {
    let module = name.replace('-', "_");
    let decoder: String = name.split('-').map(capitalised).collect();
    let fill = |template: &str, sdk: &str| {
        template
            .replace("{name}", name)
            .replace("{module}", &module)
            .replace("{Decoder}", &decoder)
            .replace("{sdk}", sdk)
    };
    fs::create_dir_all(folder.join("src")).with_context(|| format!("cannot make {}", folder.display()))?;
    let sdk = sdk.map(Path::to_owned).or_else(|| checkout_around(folder));
    let sdk = match sdk {
        Some(path) => {
            let path =
                fs::canonicalize(&path).with_context(|| format!("the SDK is not at {}", path.display()))?;
            format!("path = {:?}", path.display().to_string())
        }
        None => format!("git = {REPOSITORY:?}"),
    };
    for (file, template) in [
        ("Cargo.toml", MANIFEST),
        ("src/lib.rs", DECODER),
        (&format!("{name}.cases.jsonl"), CASES),
        ("README.md", README),
        (".gitignore", "target/\n*.wasm\n"),
    ] {
        fs::write(folder.join(file), fill(template, &sdk))?;
    }
    Ok(())
}

fn capitalised(part: &str) -> String {
    let mut letters = part.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// The SDK of the checkout that a folder lies in.
fn checkout_around(folder: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(folder).ok()?;
    folder.ancestors().map(|around| around.join("guest-sdk")).find(|sdk| sdk.join("Cargo.toml").is_file())
}

/// Makes a component of a core module.
pub fn wrap(module: &Path, output: Option<&Path>) -> anyhow::Result<Exit> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let output = output.map_or_else(|| module.with_extension("component.wasm"), Path::to_owned);
    let component = wrapped(bytes).with_context(|| module.display().to_string())?;
    fs::write(&output, &component).with_context(|| format!("cannot write {}", output.display()))?;
    println!("{} {} bytes", output.display(), component.len());
    Ok(Exit::Success)
}

/// A component, of a component or of a core module.
fn wrapped(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    match bytes.get(..8) {
        Some(MODULE) => component(bytes),
        Some(COMPONENT) => {
            wasmparser::Validator::new()
                .validate_all(&bytes)
                .context("this file is not a valid component: it is damaged or incomplete")?;
            Ok(bytes)
        }
        _ => bail!(
            "these {} bytes are no WebAssembly: expected a component, or a core module made by wit-bindgen or the SDK \
             tidegate-guest",
            bytes.len()
        ),
    }
}

/// A component as it is, and one made of a core module that wit-bindgen made.
pub fn component(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if bytes.get(..8) != Some(MODULE) {
        return Ok(bytes);
    }
    ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|mut encoder| encoder.encode())
        .context("this core module cannot become a component: expected one made by wit-bindgen or the SDK tidegate-guest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_in_javascript_needs_nothing_outside_of_its_folder() {
        let folder = tempfile::TempDir::new().unwrap();
        let folder = folder.path().join("hot-boiler");
        new("hot-boiler", Language::Js, Some(&folder), None).unwrap();
        for (file, _) in JS_FILES {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            assert!(!text.contains("../.."), "{file}");
            assert!(!text.contains("\"flat\"") && !text.replace("${name}", "").contains("{name}"), "{file}");
        }
        let build = fs::read_to_string(folder.join("build.mjs")).unwrap();
        assert!(
            build.contains("new URL(\"wit\", import.meta.url)") && build.contains("about 20 s"),
            "{build}"
        );
        assert!(folder.join("hot-boiler.cases.jsonl").exists());
        let wit = fs::read_to_string(folder.join("wit/decoder.wit")).unwrap();
        assert!(wit.contains("tidegate:ingest@1.0.0") && !wit.contains("    import state;"));
    }

    #[test]
    fn what_is_no_webassembly_is_not_wrapped() {
        for bytes in [&b""[..], b"hello, world", b"\0asm", b"\0asm\x01\0\0"] {
            let error = wrapped(bytes.to_vec()).unwrap_err().to_string();
            assert!(error.contains("no WebAssembly"), "{error}");
        }
        for cut in [[MODULE, b"\x01\x7f"].concat(), [COMPONENT, b"\x01\x7f"].concat()] {
            assert!(wrapped(cut).is_err());
        }
        assert_eq!(wrapped(COMPONENT.to_vec()).unwrap(), COMPONENT);
    }
}

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

/// Writes a crate with a decoder that works, its cases, and what to do next.
pub fn new(name: &str, dir: Option<&Path>, sdk: Option<&Path>) -> anyhow::Result<Exit> {
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
    let sdk = sdk.map(Path::to_owned).or_else(|| checkout_around(&folder));
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
    println!("{} contains a working decoder; its README.md says how to build and serve it", folder.display());
    Ok(Exit::Success)
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

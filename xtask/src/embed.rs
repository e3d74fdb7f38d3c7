//! `cargo xtask embed`: the decoders that come with the program. They lie in the source as components, so that
//! building the program needs no wasm32 target. Beside them stand the digests of the files they were built from, as
//! `sha256sum -c` reads them; a test holds them against the files. A component whose sources are the same stays: built
//! in another folder it has other bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{guests, process};

/// The decoders, as `runtime/rollout/src/builtin.rs` lists them.
const DECODERS: [&str; 8] = ["pulse", "json", "passthrough", "lpp", "senml", "sparkplug", "mapping", ENGINE];

/// The one that needs a compiler for C, and is a workspace of its own. It is built only if its sources have changed.
const ENGINE: &str = "js";

/// Folders and files that all of them are built from.
const SOURCES: [&str; 4] = ["guests/Cargo.toml", "guests/Cargo.lock", "guest-sdk", "wit"];

const COMPONENTS: &str = "runtime/rollout/src/builtin/components";

pub fn embed() -> Result<()> {
    let built = guests::build_all()?;
    let components = process::root().join(COMPONENTS);
    let list = components.join("sources.sha256");
    let before = fs::read_to_string(&list).unwrap_or_default();
    let common = digests(SOURCES.map(PathBuf::from).to_vec())?;
    let mut all = common.clone();
    for decoder in DECODERS {
        let mut source = Path::new("guests").join(decoder);
        let mut parts = vec!["Cargo.toml", "src"];
        if decoder == ENGINE {
            source.set_file_name("quickjs");
            parts.push("Cargo.lock");
        }
        let own = digests(parts.into_iter().map(|part| source.join(part)).collect())?;
        let listed = |line: &String| before.lines().any(|known| known == line);
        let lies_there = components.join(format!("{decoder}.wasm"));
        if !lies_there.exists() || !common.iter().chain(&own).all(listed) {
            if decoder == ENGINE {
                guests::build_engine()?;
            }
            let component = built.join(format!("{decoder}.wasm"));
            fs::copy(&component, lies_there)
                .with_context(|| format!("cannot copy {}", component.display()))?;
            println!("{COMPONENTS}/{decoder}.wasm is {} as it is now", source.display());
        }
        all.extend(own);
    }
    all.sort_by(|one, other| one[64..].cmp(&other[64..]));
    fs::write(list, all.join("\n") + "\n")?;
    Ok(())
}

/// The digests of all files in these folders, one a line.
fn digests(sources: Vec<PathBuf>) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for source in sources {
        collect(&process::root().join(source), &mut files)?;
    }
    let digest = |file: PathBuf| {
        let digest = Sha256::digest(fs::read(&file)?);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{digest}  {}", file.strip_prefix(process::root())?.display()))
    };
    files.into_iter().map(digest).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        // Tests are in no component.
        if path.file_name().is_none_or(|name| name != "tests") {
            collect(&path, files)?;
        }
    }
    Ok(())
}

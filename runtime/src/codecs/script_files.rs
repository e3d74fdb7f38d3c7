//! A script of a folder, with the files of that folder that it requires.

use std::io::{Error, Read};
use std::path::Path;

use anyhow::Context;

use crate::limits::CODEC_FILE_BYTES_MAX;
use crate::rollout;

/// The text of a script as the decoder takes it. `folder` has it, and all that it may require.
///
/// # Errors
/// A file cannot be read, or they are too many or too large.
pub fn read(folder: &Path, script: &Path) -> anyhow::Result<String> {
    let entry = script.strip_prefix(folder).unwrap_or(script);
    let entry = entry.to_str().context("the path of the script is not UTF-8")?;
    let packed = rollout::pack(entry, |path| {
        if !is_file_without_links(folder, path) {
            return Ok(None);
        }
        let file = folder.join(path);
        let text = text(&file).map_err(|error| format!("{path}: {error}"))?;
        Ok(Some(text.trim_start_matches('\u{feff}').to_owned()))
    });
    let unread =
        || format!("{} cannot be read: expected a file, and no link on the way to it", script.display());
    packed.map_err(anyhow::Error::msg)?.with_context(unread)
}

/// True for a file to which no link leads: it could lead out of the folder, and the file would go to the gateway.
fn is_file_without_links(folder: &Path, path: &str) -> bool {
    let mut place = folder.to_owned();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        let Ok(metadata) = place.symlink_metadata() else { return false };
        let is_right = if parts.peek().is_some() { metadata.is_dir() } else { metadata.is_file() };
        if !is_right {
            return false;
        }
    }
    true
}

fn text(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let bytes = std::fs::File::open(file)?.take(CODEC_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    match bytes as u64 > CODEC_FILE_BYTES_MAX {
        true => Err(Error::other(format!("it is larger than {CODEC_FILE_BYTES_MAX} bytes"))),
        false => Ok(text),
    }
}

/// True for a folder that is a script.
pub fn is_script(folder: &Path) -> bool {
    rollout::ENTRIES.iter().any(|entry| folder.join(entry).is_file())
}

/// The script of a folder that is one.
///
/// # Errors
/// It has none, or the errors of `read`.
pub fn read_folder(folder: &Path) -> anyhow::Result<String> {
    let entry = rollout::ENTRIES.iter().map(|entry| folder.join(entry)).find(|entry| entry.is_file());
    let entry =
        entry.with_context(|| format!("a script in a folder is {}", rollout::ENTRIES.join(" or ")))?;
    read(folder, &entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_driver_requires_files_of_the_collection_and_no_others() {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("catalog");
        for (path, text) in [
            (
                "catalog/vendor/drivers/a/index.js",
                "\u{feff}require('../decode.js'); require('../link.js'); require('../../../../x.js');",
            ),
            ("catalog/vendor/drivers/decode.js", "exports.decode = 1;"),
            ("x.js", "secret"),
        ] {
            let path = outside.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink(outside.path().join("x.js"), folder.join("vendor/drivers/link.js"))
            .unwrap();
        let script = folder.join("vendor/drivers/a/index.js");
        let packed: serde_json::Value = serde_json::from_str(&read(&folder, &script).unwrap()).unwrap();
        let files: Vec<_> = packed["files"].as_object().unwrap().keys().collect();
        assert_eq!(files, ["vendor/drivers/a/index.js", "vendor/drivers/decode.js"]);
        assert!(read_folder(&folder).unwrap_err().to_string().contains("index.js or main.js"));
        let alone = read_folder(&folder.join("vendor/drivers/a")).unwrap();
        assert!(alone.starts_with("require"), "the others are out of this folder: {alone}");
    }

    #[test]
    fn no_file_comes_along_by_a_link() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("s.js"), "exports.s = 's3cret'").unwrap();
        let main = folder.path().join("main.js");
        fs::write(&main, "require('./d/s'); require('./l'); require('./own')").unwrap();
        fs::write(folder.path().join("own.js"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("d")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("s.js"), folder.path().join("l.js")).unwrap();
        let packed = read(folder.path(), &main).unwrap();
        assert!(packed.contains("own.js") && !packed.contains("s3cret"), "{packed}");
    }
}

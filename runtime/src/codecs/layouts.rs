//! The search for codecs in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::codecs::example::Codec;
use crate::codecs::{actility, chirpstack, milesight, things_stack};
use crate::limits::{CODEC_FILE_BYTES_MAX, CODEC_FOLDER_DEPTH_MAX};

/// The codecs of a folder, and the files that should have some and cannot be read.
#[derive(Debug, Default)]
pub struct Found {
    pub codecs: Vec<Codec>,
    pub unreadable: Vec<(String, String)>,
}

/// Finds all codecs with examples, in the order of their names.
///
/// # Errors
/// The folder cannot be read.
pub fn find(folder: &Path) -> anyhow::Result<Found> {
    let mut files = Vec::new();
    collect(folder, 0, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
    files.sort();
    let mut found = Found::default();
    for file in files {
        let name = shown(folder, &file);
        match read(&file) {
            Ok(None) => {}
            Ok(Some(codec)) if codec.script.is_file() => {
                let name = shown(folder, &codec.script);
                found.codecs.push(Codec { name, ..codec });
            }
            Ok(Some(codec)) => {
                found.unreadable.push((name, format!("there is no {}", shown(folder, &codec.script))));
            }
            Err(error) => found.unreadable.push((name, format!("{error:#}"))),
        }
    }
    Ok(found)
}

fn shown(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // What tools keep there is nobody's codec.
        let skipped = name.to_string_lossy().starts_with('.') || name == "node_modules";
        // The kind of a link is neither: links may lead back, and without end.
        let kind = entry.file_type()?;
        if kind.is_dir() && !skipped && depth < CODEC_FOLDER_DEPTH_MAX {
            collect(&entry.path(), depth + 1, files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The codec that a file brings examples for, in whichever layout.
fn read(file: &Path) -> anyhow::Result<Option<Codec>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(script) = chirpstack::script_name(&name) {
        return chirpstack::read(file, &script, &text(file)?).map(Some);
    }
    if let Some(script) = milesight::script_name(&name) {
        return milesight::read(file, &script, &text(file)?);
    }
    if name == actility::FILE_NAME {
        return actility::read(file, &text(file)?);
    }
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        let text = text(file)?;
        if text.contains(things_stack::MARK) {
            return things_stack::read(file, &text);
        }
    }
    Ok(None)
}

/// The text of a file.
///
/// # Errors
/// It is too large, no text, or cannot be read.
pub fn text(file: &Path) -> anyhow::Result<String> {
    let bytes = fs::metadata(file)?.len();
    anyhow::ensure!(
        bytes <= CODEC_FILE_BYTES_MAX,
        "it has {bytes} bytes: expected at most {CODEC_FILE_BYTES_MAX}"
    );
    let text = fs::read(file)?;
    String::from_utf8(text).ok().context("it is not UTF-8")
}

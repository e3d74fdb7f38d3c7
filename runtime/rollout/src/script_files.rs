//! A script in several files: the entry, and the files that it requires or imports, each by a path of its own folder.
//! They reach the decoder as one text.
//!
//! Only what is named in a text is read: drivers lie beside examples and tests. A path that is computed is not found.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{SCRIPT_BYTES_MAX, SCRIPT_FILES_MAX};

/// The files with which a folder is a script. The first one that is there: as node has it, and where public drivers have
/// both, `index.js` is the bundle of the other.
pub const ENTRIES: [&str; 2] = ["index.js", "main.js"];

/// Endings that a path may leave out, as node has it.
const ENDINGS: [&str; 6] = ["", ".js", ".cjs", ".mjs", ".json", "/index.js"];

/// The text of a script and all of its files: the script itself if it has no other.
///
/// `read` gives the text of a file by its path with slashes, `None` where there is none.
///
/// # Errors
/// The errors of `read`; the files are too many or too large.
pub fn pack(
    entry: &str,
    mut read: impl FnMut(&str) -> Result<Option<String>, String>,
) -> Result<Option<String>, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let (mut waiting, mut looked_at) = (vec![vec![entry.to_owned()]], BTreeSet::new());
    let mut bytes = 0;
    while let Some(candidates) = waiting.pop() {
        for path in candidates {
            if files.contains_key(&path) {
                break;
            }
            if !is_file_of_a_script(&path) || !looked_at.insert(path.clone()) {
                continue;
            }
            let Some(text) = read(&path)? else { continue };
            bytes += text.len() as u64;
            if files.len() == SCRIPT_FILES_MAX || bytes > SCRIPT_BYTES_MAX {
                return Err(format!(
                    "{entry} and the files that it requires are more than {SCRIPT_FILES_MAX} files or {SCRIPT_BYTES_MAX} \
                     bytes: expected fewer"
                ));
            }
            if !path.ends_with(".json") {
                waiting.extend(requested(&text).filter_map(|request| candidates_of(&path, request)));
            }
            files.insert(path, text);
            break;
        }
    }
    let Some(own) = files.get(entry) else { return Ok(None) };
    if files.len() == 1 {
        return Ok(Some(own.clone()));
    }
    Ok(Some(serde_json::json!({ "entry": entry, "files": files }).to_string()))
}

fn is_file_of_a_script(path: &str) -> bool {
    [".js", ".cjs", ".mjs", ".json"].iter().any(|ending| path.ends_with(ending))
}

/// The paths that a request in a file may mean. None: it leads out of the folder.
fn candidates_of(from: &str, request: &str) -> Option<Vec<String>> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in request.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    Some(ENDINGS.iter().map(|ending| format!("{path}{ending}")).collect())
}

/// The relative paths in `require("…")`, `from "…"` and `import "…"` of a text. Those in comments are among them.
fn requested(text: &str) -> impl Iterator<Item = &str> {
    ["require", "from", "import"].into_iter().flat_map(move |word| {
        text.match_indices(word).filter_map(move |(at, _)| {
            let rest = text[at + word.len()..].trim_start();
            let rest = match word {
                "require" => rest.strip_prefix('(')?.trim_start(),
                _ => rest,
            };
            let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"' | '`'))?;
            let (path, _) = rest[1..].split_once(quote)?;
            let is_relative =
                path.starts_with("./") || path.starts_with("../") || path == "." || path == "..";
            (is_relative && !path.contains(['\n', '\\'])).then_some(path)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn packed(entry: &str, files: &[(&str, &str)]) -> Result<Option<String>, String> {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        pack(entry, |path| Ok(files.get(path).map(|text| (*text).to_owned())))
    }

    fn names(entry: &str, files: &[(&str, &str)]) -> Vec<String> {
        let value: Value = serde_json::from_str(&packed(entry, files).unwrap().unwrap()).unwrap();
        assert_eq!(value["entry"], json!(entry));
        value["files"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn only_files_that_are_required_go_along_and_no_path_leads_out() {
        let files = [
            (
                "d/index.js",
                "const a = require('../lib/a'); let u = require( \"./units.json\" ); import x from './m.mjs'",
            ),
            ("d/units.json", "{\"from\": './never.js'}"),
            ("d/m.mjs", "import '../lib'"),
            ("d/examples.json", "[]"),
            ("d/never.js", ""),
            (
                "lib/a.js",
                "require('./b'); require('../../../etc/passwd'); require('fs'); require(`./${name}`)",
            ),
            ("lib/b/index.js", "require('../a')"),
            ("lib/index.js", ""),
            ("README.md", ""),
        ];
        assert_eq!(
            names("d/index.js", &files),
            ["d/index.js", "d/m.mjs", "d/units.json", "lib/a.js", "lib/b/index.js", "lib/index.js"]
        );
    }

    #[test]
    fn a_script_alone_is_its_text_and_a_missing_one_none() {
        let text = "// require('./gone')\nfunction decodeUplink() {}";
        assert_eq!(packed("main.js", &[("main.js", text)]).unwrap().unwrap(), text);
        assert_eq!(packed("main.js", &[]).unwrap(), None);
    }

    #[test]
    fn files_are_bounded_in_number_and_bytes() {
        let many = |count: usize| -> Vec<(String, String)> {
            (0..count).map(|n| (format!("f{n}.js"), format!("require('./f{}')", n + 1))).collect()
        };
        let run = |files: Vec<(String, String)>| {
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            packed("f0.js", &files)
        };
        assert!(run(many(SCRIPT_FILES_MAX)).is_ok());
        assert!(run(many(SCRIPT_FILES_MAX + 1)).unwrap_err().contains("more than"));
        let large = vec![("f0.js".to_owned(), " ".repeat(SCRIPT_BYTES_MAX as usize + 1))];
        assert!(run(large).unwrap_err().contains("bytes"));
    }
}

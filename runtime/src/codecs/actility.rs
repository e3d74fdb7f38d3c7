//! The device catalog of Actility: `examples.json` has the examples of the driver in its folder, which is `index.js`, or
//! `main.js` where there is no other, with the files that it requires.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::codecs::example::{Codec, Example, ExpectedValues, Layout};
use crate::rollout::ENTRIES;

pub const FILE_NAME: &str = "examples.json";

/// The codec whose examples a file has. None: it is another file of this name.
///
/// # Errors
/// It is not as the layout says.
pub fn read(file: &Path, text: &str) -> anyhow::Result<Option<Codec>> {
    let scripts = ENTRIES.map(|script| file.with_file_name(script));
    let Some(script) = scripts.into_iter().find(|script| script.is_file()) else { return Ok(None) };
    let all: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).context("not JSON")?;
    let Some(all) = all.as_array() else { return Ok(None) };
    let uplinks = all.iter().enumerate().filter(|(_, example)| example["type"] == "uplink");
    let examples = uplinks
        .map(|(index, example)| read_example(example).with_context(|| format!("example {index}")))
        .collect::<anyhow::Result<_>>()?;
    Ok(Some(Codec { name: String::new(), script, layout: Layout::Actility, examples }))
}

fn read_example(example: &Value) -> anyhow::Result<Example> {
    let input = example.get("input").context("input is missing")?;
    let output = example.get("output").context("output is missing")?;
    let named = ["data", "errors", "warnings"].iter().any(|name| output.get(name).is_some());
    let name = example.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    // Some leave out the shell around the data.
    let data = if named { output.get("data").cloned() } else { Some(output.clone()) };
    Example::new(name, input, output, ExpectedValues { data, normalized: None })
}

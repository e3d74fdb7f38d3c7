//! The options of a route.

use tidegate_guest::Route;
use tidegate_guest::json::{self, Kind, Reader};
use tidegate_objects::ObjectRules;

use crate::limits::{SCRIPT_BYTES_CEILING, SCRIPT_BYTES_MAX};
use crate::modules::ScriptFiles;

/// The values that become lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `data` of `decodeUplink`.
    Decoded,
    /// `data` of `normalizeUplink`.
    Normalized,
    /// The whole answer, as JSON in one field.
    Json,
}

pub struct Options {
    pub script: ScriptFiles,
    /// The port of messages that bring none.
    pub port: u8,
    pub output: Output,
    pub rules: ObjectRules,
    pub variables: Vec<(String, String)>,
}

const OWN: [&str; 5] = ["script", "script_bytes_max", "port", "output", "variables"];

impl Options {
    pub fn read(route: &Route) -> Result<Self, String> {
        route.allow_options(&[&OWN[..], &ObjectRules::OPTIONS].concat())?;
        let bytes_max = match route.option("script_bytes_max").map(str::parse) {
            None => SCRIPT_BYTES_MAX,
            Some(Ok(bytes)) if (1..=SCRIPT_BYTES_CEILING).contains(&bytes) => bytes,
            Some(_) => {
                return Err(format!("option \"script_bytes_max\": expected 1 to {SCRIPT_BYTES_CEILING}"));
            }
        };
        let script = ScriptFiles::read(route.option("script").unwrap_or_default())?;
        if script.is_empty() {
            return Err("there is no script: expected it in a file NAME.js beside NAME.toml, or in a folder NAME with \
                        main.js or index.js"
                .to_owned());
        }
        if script.bytes() > bytes_max {
            return Err(format!(
                "the script has {} bytes: expected at most {bytes_max}, or script_bytes_max up to \
                 {SCRIPT_BYTES_CEILING} among the route's options",
                script.bytes()
            ));
        }
        let port = match route.option("port").map(str::parse) {
            None => 1,
            Some(Ok(port)) => port,
            Some(Err(_)) => return Err("option \"port\": expected 0 to 255".to_owned()),
        };
        let output = match route.option("output") {
            None | Some("decoded") => Output::Decoded,
            Some("normalized") => Output::Normalized,
            Some("json") => Output::Json,
            Some(other) => {
                return Err(format!("option \"output\" is {other:?}: expected decoded, normalized or json"));
            }
        };
        let variables = match route.option("variables") {
            None => Vec::new(),
            Some(table) => variables(table)
                .map_err(|_| "option \"variables\": expected a table of texts, numbers and booleans")?,
        };
        Ok(Self { script, port, output, rules: ObjectRules::read(route)?, variables })
    }
}

/// The variables of a table, which comes as JSON. All are texts, as a network server gives them.
fn variables(table: &str) -> Result<Vec<(String, String)>, json::Error> {
    let mut reader = Reader::new(table.as_bytes());
    let mut variables = Vec::new();
    reader.object()?;
    while let Some(name) = reader.next_key()? {
        let name = name.decode().into_owned();
        let value = match reader.peek()? {
            Kind::Number => reader.number()?.text().to_owned(),
            Kind::Bool => reader.bool()?.to_string(),
            _ => reader.string()?.decode().into_owned(),
        };
        variables.push((name, value));
    }
    reader.end()?;
    Ok(variables)
}

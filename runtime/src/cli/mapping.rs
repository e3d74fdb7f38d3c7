//! `tidegate mapping`: a mapping at work, each value with the bytes that it came from.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use tidegate_guest::testing;
use tidegate_guest::{Lines, Route};
use tidegate_mapping::Mapping;

use crate::cli::{BadUsage, Exit};
use crate::core::detail::printable;
use crate::explain::cases::received_ns;
use crate::explain::hex;
use crate::explain::mapping_trace::MappingTrace;
use crate::rollout::route_file;

/// Try a mapping on a payload
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate mapping try guests/acme/meter.toml --payload-hex '01 64 00 0f 42 40 00 03 e8 7f'"
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show each value of a payload with the place that it came from, and the lines
    ///
    /// Needs no gateway and no configuration. Exit 0: it makes lines, or none. Exit 1: the mapping or the payload is
    /// refused.
    #[command(after_help = "Examples:\n  \
        tidegate mapping try guests/acme/meter.toml --payload-hex '01 64 00 0f 42 40 00 03 e8 7f'\n  \
        tidegate mapping try reading.toml --payload-file reading.json")]
    Try {
        /// The route file, with decoder = "mapping"
        file: PathBuf,
        /// The payload as hexadecimal digits; blanks and colons between them are fine
        #[arg(
            long,
            value_name = "HEX",
            required_unless_present = "payload_file",
            conflicts_with = "payload_file"
        )]
        payload_hex: Option<String>,
        /// A file with the payload
        #[arg(long, value_name = "FILE")]
        payload_file: Option<PathBuf>,
        /// The time of receipt [default: now]
        #[arg(long, value_name = "RFC3339")]
        received_at: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn mapping(arguments: &Arguments) -> anyhow::Result<Exit> {
    let Action::Try { file, payload_hex, payload_file, received_at, json } = &arguments.action;
    let payload = match (payload_hex, payload_file) {
        (Some(hex), _) => hex::bytes(hex, |c| c.is_whitespace() || c == ':').ok_or_else(|| {
            BadUsage(format!("--payload-hex {hex:?}: expected pairs of hexadecimal digits, as \"01 64 0f\""))
        })?,
        (None, Some(path)) => std::fs::read(path)
            .map_err(|error| BadUsage(format!("--payload-file {}: {error}", path.display())))?,
        (None, None) => Vec::new(),
    };
    let received_ns = match received_at {
        Some(text) => received_ns(text).map_err(|error| BadUsage(format!("{error:#}")))?,
        None => i64::try_from(jiff::Timestamp::now().as_nanosecond()).context("the clock of this machine")?,
    };
    let mapping = match read(file)? {
        Ok(mapping) => mapping,
        Err(why) => return Ok(refuse(*json, "MAY_NOT_SERVE", &format!("{}: {why}", file.display()))),
    };
    let mut trace = MappingTrace::default();
    let decoded = testing::Context::default().decode_one(&payload, &mut |message, lines: &mut Lines| {
        mapping.decode_with(message.payload, received_ns, lines, &mut trace)
    });
    if !json {
        print!("{}", trace.table(&payload));
    }
    match decoded {
        Ok(lines) if *json => {
            let lines: Vec<&str> = lines.lines().collect();
            println!("{:#}", json!({"values": trace.values(&payload), "lines": lines}));
        }
        Ok(lines) if lines.is_empty() => println!("no line: no field has a value"),
        Ok(lines) => print!("\n{lines}"),
        Err(refusal) => {
            if *json {
                let shown = json!({"values": trace.values(&payload), "error": refusal.code, "message": refusal.detail});
                println!("{shown:#}");
            } else {
                println!("\n{}: {}", refusal.code, printable(&refusal.detail));
            }
            return Ok(Exit::Failure);
        }
    }
    Ok(Exit::Success)
}

fn refuse(json: bool, code: &str, message: &str) -> Exit {
    match json {
        true => println!("{:#}", json!({"error": code, "message": message})),
        false => eprintln!("{}", printable(message)),
    }
    Exit::Failure
}

/// The mapping of a route file, or the reason why it may not serve.
fn read(file: &Path) -> anyhow::Result<Result<Mapping, String>> {
    let text =
        std::fs::read_to_string(file).map_err(|error| BadUsage(format!("{}: {error}", file.display())))?;
    let options = route_file::decoder(&text).and_then(|decoder| match decoder.as_deref() {
        Some("mapping") => route_file::options(&text),
        Some(other) => Err(format!("it names the decoder {other:?}: expected decoder = \"mapping\"")),
        None => Err("it names no decoder: expected decoder = \"mapping\"".into()),
    });
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("message");
    let route = |options| Route { tenant: String::new(), message_type: stem.to_owned(), options };
    Ok(options.and_then(|options| Mapping::read(&route(options))))
}

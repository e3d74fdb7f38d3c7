//! `tidegate explain`: what would happen to a message. Nothing is sent, nothing changes.

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::core::detail::{printable, printable_lines};
use crate::explain::cases::{payload, received_ns};
use crate::explain::dry_run::DryRun;
use crate::explain::verdict::{ExplainRequest, ExplainVerdict, RowOverride};
use crate::telemetry::progress::Progress;

/// Show step by step what would happen to a message; sends nothing and changes nothing
///
/// Exit 0: it would become lines, or is empty. Exit 1: it would be refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tidegate explain --topic tenant/acme/device/dev-1/telemetry --payload-file message.json\n  \
    echo '{\"id\":1,\"topic\":\"tenant/acme/device/dev-1/telemetry\",\"payload\":\"{}\"}' | tidegate explain --jsonl")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The topic of the message
    #[arg(long, required_unless_present = "jsonl", conflicts_with = "jsonl")]
    topic: Option<String>,
    /// The payload as text
    #[arg(long, conflicts_with_all = ["payload_file", "jsonl"])]
    payload: Option<String>,
    /// A file with the payload [default: stdin]
    #[arg(long, value_name = "FILE", conflicts_with = "jsonl")]
    payload_file: Option<PathBuf>,
    /// Read many messages from stdin, one JSON object in each line; print one verdict line for each, in order
    #[arg(long)]
    jsonl: bool,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

pub fn explain(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let progress = Progress::start("the decoders are compiled and started");
    let mut dry_run = DryRun::new(&config)?;
    drop(progress);
    if arguments.jsonl {
        return explain_lines(&mut dry_run);
    }
    let payload = match (&arguments.payload, &arguments.payload_file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => std::fs::read(path)
            .map_err(|error| BadUsage(format!("--payload-file {}: {error}", path.display())))?,
        (None, None) => {
            let mut payload = Vec::new();
            std::io::stdin().read_to_end(&mut payload)?;
            payload
        }
    };
    let question = ExplainRequest {
        topic: arguments.topic.clone().unwrap_or_default(),
        payload: payload.into(),
        received_ns: now_ns(),
        registry_row: None,
    };
    let topic = question.topic.clone();
    let verdict = dry_run.judge(question);
    if arguments.json {
        println!("{}", verdict.record(Value::Null));
    } else {
        print_steps(&topic, &verdict);
    }
    Ok(if verdict.is_refusal() { Exit::Failure } else { Exit::Success })
}

fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}

fn print_steps(topic: &str, verdict: &ExplainVerdict) {
    let step = |name: &str, value: &str| println!("{name:<11} {}", printable(value));
    let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
    step("topic", topic);
    step("tenant", &named(&verdict.tenant));
    step("device", &named(&verdict.device));
    step("admission", if verdict.admitted { "admitted (no rate limit here)" } else { "refused" });
    step("guest", &named(&verdict.guest));
    step("database", &named(&verdict.database));
    step("outcome", verdict.outcome.name());
    if let Some(reason) = verdict.reason {
        step("reason", &format!("{reason}: {}", verdict.detail.as_deref().unwrap_or_default()));
    }
    for line in &verdict.lines {
        step("line", line);
    }
    for value in &verdict.ignored {
        step("ignored", value);
    }
}

/// The form of a line of `--jsonl`.
const EXPECTED: &str = "one JSON object with topic, payload or payload_base64, and if wanted id, received_at (RFC 3339) \
    and registry_row (null, or an object with site_id and status)";

/// One line of `--jsonl`.
#[derive(Debug, Deserialize)]
struct QuestionLine {
    #[serde(default)]
    id: Value,
    topic: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    received_at: Option<String>,
    /// Absent: ask the registry. Null: not registered.
    #[serde(default, deserialize_with = "present")]
    registry_row: Option<Option<RowOverride>>,
}

/// The name of a line that cannot be read otherwise.
#[derive(Debug, Deserialize)]
struct RequestId {
    #[serde(default)]
    id: Value,
}

/// Tells a null from an absent key.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn read_question(line: &[u8]) -> anyhow::Result<(Value, ExplainRequest)> {
    let line: QuestionLine = serde_json::from_slice(line)?;
    let question = ExplainRequest {
        topic: line.topic,
        payload: payload(line.payload, line.payload_base64)?.into(),
        received_ns: match &line.received_at {
            Some(text) => received_ns(text)?,
            None => now_ns(),
        },
        registry_row: line.registry_row,
    };
    Ok((line.id, question))
}

fn explain_lines(dry_run: &mut DryRun) -> anyhow::Result<Exit> {
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    let mut done = Exit::Success;
    let mut bad_lines = 0;
    for number in 1.. {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (id, question) = match read_question(&line) {
            Ok(read) => read,
            Err(error) => {
                // Its place in the order is kept, and the others get their verdicts.
                let id = serde_json::from_slice::<RequestId>(&line).map_or(Value::Null, |named| named.id);
                let error = format!("{error:#}; expected {EXPECTED}");
                writeln!(output, "{}", json!({"id": id, "error": error}))?;
                eprintln!("tidegate: stdin line {number}: {}", printable_lines(&error));
                bad_lines += 1;
                continue;
            }
        };
        let verdict = dry_run.judge(question);
        if verdict.is_refusal() {
            done = Exit::Failure;
        }
        writeln!(output, "{}", verdict.record(id))?;
    }
    output.flush()?;
    if bad_lines > 0 {
        return Err(BadUsage(format!("stdin: {bad_lines} lines cannot be read")).into());
    }
    Ok(done)
}

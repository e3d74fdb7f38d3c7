//! `tidegate tail`: messages of a running gateway as they come.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::{BadUsage, ConfigArgument, Exit, admin_http};
use crate::config;
use crate::config::Config;
use crate::core::detail::printable;
use crate::pipeline::tap::filter::TapFilter;

/// The gateway sends something every other second: without it for so long, it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Bytes of one event: a message's lines are cut by the gateway long before.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Show messages of a running gateway as they come: topic, outcome, and lines or reason
///
/// At most 200 messages a second are shown, of more a sample; what is left out is counted on stderr. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate tail\n  tidegate tail --tenant acme --outcome quarantined\n  tidegate tail --device dev-1 --json"
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Only messages of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only messages of this device
    #[arg(long)]
    device: Option<String>,
    /// Only messages of this type
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Only messages with this outcome: lines, empty, quarantined or unsettled
    #[arg(long)]
    outcome: Option<String>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print each message as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The path with the filters.
    fn path(&self) -> Result<String, BadUsage> {
        let mut filter = TapFilter::default();
        let mut query = Vec::new();
        let given = [
            ("tenant", &self.tenant),
            ("device", &self.device),
            ("type", &self.r#type),
            ("outcome", &self.outcome),
        ];
        for (name, value) in given {
            let Some(value) = value else { continue };
            filter.set(name, value).map_err(|fault| BadUsage(format!("--{fault}")))?;
            let encoded = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            query.push(format!("{name}={encoded}"));
        }
        Ok(format!("/api/v1/tap?{}", query.join("&")))
    }
}

pub fn tail(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let path = arguments.path()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(&config, &path, arguments))
}

/// Prints events until the gateway ends the stream.
async fn follow(config: &Config, path: &str, arguments: &Arguments) -> anyhow::Result<Exit> {
    if config.admin.listen.is_empty() {
        bail!("admin.listen is empty: a running gateway cannot be asked");
    }
    let token = config::secret("admin.token", "", &config.admin.token_file)?;
    let client = admin_http::client(config)?.build()?;
    let mut request = client.get(format!("{}{path}", admin_http::base(config)));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    let address = &config.admin.listen;
    let answer = request
        .send()
        .await
        .map_err(|_| anyhow::anyhow!("no gateway answers at admin.listen = {address:?}; is it running?"))?;
    let status = answer.status();
    if !status.is_success() {
        bail!("the gateway answered {status}: {}", answer.text().await?.trim());
    }
    let (mut answer, mut events) = (answer, EventReader::default());
    let (mut shown, mut missed) = (0, 0);
    loop {
        let chunk = tokio::time::timeout(SILENCE_MAX, answer.chunk())
            .await
            .context("the gateway says nothing any more")?
            .context("the connection to the gateway ended")?;
        let Some(chunk) = chunk else { bail!("the gateway has ended the stream") };
        events.push(&chunk)?;
        while let Some((name, data)) = events.take_event() {
            // A comment, which shows that the connection lives.
            if data.is_empty() {
                continue;
            }
            let event: Value = serde_json::from_str(&data).with_context(|| format!("no JSON: {data}"))?;
            if name == "counts" {
                let now = event["passed_over"].as_u64().unwrap_or(0) + event["dropped"].as_u64().unwrap_or(0);
                if now > missed {
                    eprintln!("{} messages were not shown", now - missed);
                    missed = now;
                }
                continue;
            }
            let mut out = std::io::stdout().lock();
            let line = if arguments.json { event.to_string() } else { in_words(&event, out.is_terminal()) };
            writeln!(out, "{line}")?;
            out.flush()?;
            shown += 1;
            if arguments.count.is_some_and(|count| shown >= count) {
                return Ok(Exit::Success);
            }
        }
    }
}

/// A message in one line, and its lines below.
fn in_words(message: &Value, in_colour: bool) -> String {
    let text = |key: &str| message[key].as_str().unwrap_or_default();
    let time = text("received_at").get(11..23).unwrap_or_default();
    let outcome = text("outcome");
    let (on, off) = if in_colour && outcome == "quarantined" { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    let mut line = format!("{time}Z {on}{outcome:<11}{off} {}", printable(text("topic")));
    if let Some(reason) = message["reason"].as_str() {
        line += &format!("  {reason}: {}", printable(text("detail")));
    }
    for one in message["lines"].as_array().into_iter().flatten() {
        line += &format!("\n    {}", printable(one.as_str().unwrap_or_default()));
    }
    let shown = message["lines"].as_array().map_or(0, Vec::len) as u64;
    match message["line_count"].as_u64().unwrap_or_default().saturating_sub(shown) {
        0 => {}
        more => line += &format!("\n    and {more} more lines"),
    }
    line
}

/// Server-sent events out of the bytes of an answer: their names and data.
#[derive(Default)]
struct EventReader {
    bytes: Vec<u8>,
}

impl EventReader {
    fn push(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        self.bytes.extend_from_slice(chunk);
        if self.bytes.len() > EVENT_BYTES_MAX {
            bail!("the gateway sends an event of more than {EVENT_BYTES_MAX} bytes");
        }
        Ok(())
    }

    /// The next event that is complete.
    fn take_event(&mut self) -> Option<(String, String)> {
        let end = self.bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let event: Vec<u8> = self.bytes.drain(..end + 2).collect();
        let (mut name, mut data) = (String::new(), String::new());
        for line in String::from_utf8_lossy(&event).lines() {
            match line.split_once(':') {
                Some(("event", value)) => name = value.trim_start().to_owned(),
                Some(("data", value)) => data += value.strip_prefix(' ').unwrap_or(value),
                _ => {}
            }
        }
        Some((name, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_read_however_the_bytes_come() {
        let mut reader = EventReader::default();
        let mut found = Vec::new();
        for byte in b"event: counts\ndata: {\"dropped\":0}\n\n: alive\n\nevent: message\ndata: {}\n\n" {
            reader.push(&[*byte]).unwrap();
            found.extend(reader.take_event());
        }
        let named: Vec<(&str, &str)> = found.iter().map(|(name, data)| (&**name, &**data)).collect();
        assert_eq!(named, [("counts", "{\"dropped\":0}"), ("", ""), ("message", "{}")]);
    }

    #[test]
    fn a_message_is_shown_with_its_lines_or_its_reason_and_no_control_character() {
        let lines = json!({
            "received_at": "2026-12-01T11:50:01.123456789Z", "outcome": "lines", "topic": "a/\u{1b}[2J",
            "reason": null, "lines": ["m v=1"], "line_count": 3,
        });
        let text = in_words(&lines, false);
        assert!(text.starts_with("11:50:01.123Z lines") && !text.contains('\u{1b}'), "{text}");
        assert!(text.ends_with("\n    m v=1\n    and 2 more lines"), "{text}");
        let refused = json!({
            "received_at": "2026-12-01T11:50:01.123456789Z", "outcome": "quarantined", "topic": "a",
            "reason": "BAD_PAYLOAD", "detail": "no", "lines": [], "line_count": 0,
        });
        assert!(in_words(&refused, false).ends_with("a  BAD_PAYLOAD: no"));
        assert!(in_words(&refused, true).contains("\u{1b}[31mquarantined"));
    }
}

//! `tidegate tail`: messages of a running gateway as they come.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::cli::admin_client::{AdminClient, GatewayArgument};
use crate::cli::tap_stream::{TapArguments, TapEvent, TapStream};
use crate::cli::{ConfigArgument, Exit};
use crate::core::detail::printable;

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
    #[command(flatten)]
    gateway: GatewayArgument,
    #[command(flatten)]
    wanted: TapArguments,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print each message as JSON
    #[arg(long)]
    json: bool,
}

pub fn tail(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let gateway = AdminClient::find(&config, &arguments.gateway)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(&gateway, arguments))
}

/// Prints events until the gateway ends the stream.
async fn follow(gateway: &AdminClient, arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut stream = TapStream::open(gateway, &arguments.wanted).await?;
    let (mut shown, mut missed) = (0, 0);
    loop {
        let message = match stream.next().await? {
            TapEvent::Message(message) => message,
            TapEvent::Missed(now) => {
                if now > missed {
                    eprintln!("{} messages were not shown", now - missed);
                    missed = now;
                }
                continue;
            }
        };
        let mut out = std::io::stdout().lock();
        let line = if arguments.json { message.to_string() } else { in_words(&message, out.is_terminal()) };
        writeln!(out, "{line}")?;
        out.flush()?;
        shown += 1;
        if arguments.count.is_some_and(|count| shown >= count) {
            return Ok(Exit::Success);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

//! The tap of a running gateway, read by verbs: its filters as arguments, and its events.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, Response};
use serde_json::Value;

use crate::cli::BadUsage;
use crate::cli::admin_client::AdminClient;
use crate::pipeline::tap::filter::TapFilter;

/// The gateway sends something every other second: without it for so long, it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Bytes of one event: a message's lines are cut by the gateway long before.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The messages that are wanted.
#[derive(Debug, clap::Args)]
pub struct TapArguments {
    /// Only messages of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only messages of this device
    #[arg(long)]
    device: Option<String>,
    /// Only messages of this type
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// Only messages of these topics: + stands for one level, # at the end for the rest
    #[arg(long, value_name = "FILTER")]
    topic: Option<String>,
    /// Only messages with this outcome: lines, empty, quarantined or unsettled
    #[arg(long)]
    outcome: Option<String>,
}

impl TapArguments {
    /// The path with the filters.
    ///
    /// # Errors
    /// A filter means nothing.
    fn path(&self) -> Result<String, BadUsage> {
        let mut filter = TapFilter::default();
        let mut query = Vec::new();
        let given = [
            ("tenant", &self.tenant),
            ("device", &self.device),
            ("type", &self.message_type),
            ("topic", &self.topic),
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

/// An event of the tap.
pub enum TapEvent {
    Message(Value),
    /// Messages that were not shown, since the stream began.
    Missed(u64),
}

/// The events of a tap.
pub struct TapStream {
    answer: Response,
    events: EventReader,
}

impl TapStream {
    /// Opens the tap.
    ///
    /// # Errors
    /// A filter means nothing, nobody answers, or the gateway refuses.
    pub async fn open(gateway: &AdminClient, wanted: &TapArguments) -> anyhow::Result<Self> {
        let answer = gateway.send(gateway.request(Method::GET, &wanted.path()?)).await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("the gateway answered {status}: {}", answer.text().await?.trim());
        }
        Ok(Self { answer, events: EventReader::default() })
    }

    /// The next event; waits for it. May be given up and called again.
    ///
    /// # Errors
    /// The gateway is gone, or has ended the stream.
    pub async fn next(&mut self) -> anyhow::Result<TapEvent> {
        loop {
            while let Some((name, data)) = self.events.take_event() {
                // A comment, which shows that the connection lives.
                if data.is_empty() {
                    continue;
                }
                let event: Value = serde_json::from_str(&data).with_context(|| format!("no JSON: {data}"))?;
                let count = |key: &str| event[key].as_u64().unwrap_or(0);
                return Ok(match name.as_str() {
                    "counts" => TapEvent::Missed(count("passed_over") + count("dropped")),
                    _ => TapEvent::Message(event),
                });
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.answer.chunk())
                .await
                .context("the gateway says nothing any more")?
                .context("the connection to the gateway ended")?;
            let Some(chunk) = chunk else { bail!("the gateway has ended the stream") };
            self.events.push(&chunk)?;
        }
    }
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
}

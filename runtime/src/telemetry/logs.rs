//! Logs, to stderr: fields, not formatting. ERROR means that data is lost or a person is needed.

use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging for the process.
///
/// # Panics
/// When called twice.
pub fn start(level: &str, json: bool) {
    let filter = level.parse::<EnvFilter>().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).init();
    } else {
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(fmt::layer().with_ansi(ansi).with_writer(std::io::stderr)).init();
    }
}

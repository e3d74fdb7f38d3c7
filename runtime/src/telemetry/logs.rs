//! Logs, to stderr: fields, not formatting. ERROR means that data is lost or a person is needed.
//!
//! A target in the filter matches by its beginning: `tidegate` matches every crate of ours, and
//! `tidegate_spool` the spool.

use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

use crate::telemetry::log_queue::LogQueue;

/// The time for the last lines at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Parts that were modules of the program and are crates now. Their old targets are rewritten for one
/// release.
const MOVED: [&str; 7] = ["source", "admission", "decode", "rollout", "spool", "quarantine", "writer"];

/// Starts logging for the process. From then on neither a line of the log nor a panic waits for stderr.
///
/// # Errors
/// The host gives no thread.
///
/// # Panics
/// A second call panics.
pub fn start(level: &str, json: bool) -> std::io::Result<()> {
    let started = LogQueue::stderr()?;
    let queue = QUEUE.get_or_init(|| started).clone();
    let panics = queue.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
        panics.push(format!("thread '{name}' {panic}\n").into_bytes());
    }));
    // SAFETY: a function of ours, which may be called at any time.
    unsafe { libc::atexit(flush_at_exit) };
    let registry = tracing_subscriber::registry().with(filter(level));
    if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(queue)).init();
    } else {
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(fmt::layer().with_ansi(ansi).with_writer(queue)).init();
    }
    Ok(())
}

extern "C" fn flush_at_exit() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES);
    }
}

/// Prints a text on stderr, by the way of the log once that has started.
pub fn print(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(format!("{text}\n").into_bytes()),
        None => eprintln!("{text}"),
    }
}

/// Lines of the log that were dropped because stderr was not read.
pub fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, LogQueue::dropped)
}

fn filter(level: &str) -> EnvFilter {
    let directives: Vec<String> = level.split(',').map(current_target).collect();
    directives.join(",").parse().unwrap_or_else(|_| EnvFilter::new("info"))
}

/// `tidegate::spool=debug` as `tidegate_spool=debug`; other directives as they are.
fn current_target(directive: &str) -> String {
    let moved = || {
        let path = directive.trim().strip_prefix("tidegate::")?;
        let end = path.find([':', '=', '[']).unwrap_or(path.len());
        let part = if &path[..end] == "domain" { "core" } else { &path[..end] };
        (part == "core" || MOVED.contains(&part)).then(|| format!("tidegate_{part}{}", &path[end..]))
    };
    moved().unwrap_or_else(|| directive.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets of the events of a crate that pass a filter.
    fn passes(level: &str) -> [bool; 4] {
        let subscriber = tracing_subscriber::registry().with(filter(level));
        tracing::subscriber::with_default(subscriber, || {
            [
                tracing::enabled!(target: "tidegate::app", tracing::Level::DEBUG),
                tracing::enabled!(target: "tidegate_spool::log", tracing::Level::DEBUG),
                tracing::enabled!(target: "tidegate_core::worker", tracing::Level::DEBUG),
                tracing::enabled!(target: "hyper::proto", tracing::Level::DEBUG),
            ]
        })
    }

    #[test]
    fn the_program_s_name_matches_all_of_its_crates() {
        assert_eq!(passes("tidegate=debug"), [true, true, true, false]);
        assert_eq!(passes("info"), [false; 4]);
        assert_eq!(passes("tidegate_spool=debug"), [false, true, false, false]);
    }

    #[test]
    fn old_targets_of_parts_that_became_crates_match_them() {
        assert_eq!(passes("tidegate::spool=debug"), [false, true, false, false]);
        assert_eq!(passes("info, tidegate::domain=debug"), [false, false, true, false]);
        assert_eq!(current_target("tidegate::spool::log=trace"), "tidegate_spool::log=trace");
        assert_eq!(current_target("tidegate::writer"), "tidegate_writer");
        assert_eq!(current_target("tidegate::app=debug"), "tidegate::app=debug");
        assert_eq!(current_target("debug"), "debug");
    }
}

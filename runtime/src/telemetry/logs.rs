//! Logs, to stderr: fields, not formatting. ERROR means that data is lost or a person is needed.
//!
//! A target in the filter matches by its beginning: `tidegate` matches every crate of ours, and
//! `tidegate_spool` the spool.

use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

/// Parts that were modules of the program and are crates now. Their old targets are rewritten for one
/// release.
const MOVED: [&str; 7] = ["source", "admission", "decode", "rollout", "spool", "quarantine", "writer"];

/// Starts logging for the process.
///
/// # Panics
/// A second call panics.
pub fn start(level: &str, json: bool) {
    let registry = tracing_subscriber::registry().with(filter(level));
    if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).init();
    } else {
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(fmt::layer().with_ansi(ansi).with_writer(std::io::stderr)).init();
    }
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

//! A configuration file of Mosquitto: the settings that lose messages, and those that let everybody in. The
//! broker does not tell them to a client.

use std::fs;
use std::path::Path;

use crate::doctor::finding::{Finding, Level};

const CHECK: &str = "mosquitto file";

pub fn check(path: &Path) -> Vec<Finding> {
    match fs::read_to_string(path) {
        Ok(text) => judge(&text, &path.display().to_string()),
        Err(error) => {
            let state = format!("{} cannot be read: {error}.", path.display());
            vec![Finding::new(CHECK, Level::Error, state, "Name a readable file, or leave the option out.")]
        }
    }
}

fn judge(text: &str, name: &str) -> Vec<Finding> {
    let value = |key: &str| {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::trim).next_back()
    };
    let mut findings = Vec::new();
    let mut found =
        |state: String, advice: &str| findings.push(Finding::new(CHECK, Level::Warning, state, advice));
    if value("persistence") != Some("true") {
        found(
            format!("{name} does not set persistence true: a restart of the broker loses what waits."),
            "Set persistence true and a persistence_location.",
        );
    }
    match value("max_queued_messages") {
        Some("0") => {}
        other => found(
            format!(
                "{name} has max_queued_messages {}: the broker drops what is above it while the gateway is away.",
                other.unwrap_or("1000 (its default)")
            ),
            "Set max_queued_messages 0.",
        ),
    }
    if value("autosave_on_changes") == Some("true") {
        found(
            format!("{name} has autosave_on_changes true: the broker writes all that waits at each change."),
            "Remove autosave_on_changes, and set autosave_interval 5.",
        );
    }
    if value("allow_anonymous") == Some("true") {
        found(
            format!("{name} has allow_anonymous true: everybody who reaches the port can publish."),
            "Set allow_anonymous false and a password_file.",
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{name} keeps what waits, and lets nobody in without a password."),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_lose_messages_are_found() {
        let good = "listener 1883\nallow_anonymous false\npersistence true\nmax_queued_messages 0\n";
        assert_eq!(judge(good, "f")[0].level, Level::Ok);
        for (bad, word) in [
            (good.replace("persistence true", "# persistence true"), "persistence true"),
            (good.replace("max_queued_messages 0", ""), "1000"),
            (good.replace("max_queued_messages 0", "max_queued_messages 50"), "50"),
            (format!("{good}autosave_on_changes true\n"), "autosave_on_changes"),
            (good.replace("anonymous false", "anonymous true"), "allow_anonymous"),
        ] {
            let findings = judge(&bad, "f");
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].level, Level::Warning);
            assert!(findings[0].state.contains(word), "{findings:?}");
        }
    }
}

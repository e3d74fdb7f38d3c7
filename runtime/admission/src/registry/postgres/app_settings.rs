//! The table app_settings: settings that may change while the gateway runs.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio_postgres::Client;

use crate::registry::postgres::connection::{PgError, PgServer};

/// The table's values. None: there is no such row, and the configuration applies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AppSettings {
    /// `MODE = DEV`; otherwise it is PROD.
    pub dev: bool,
    /// `STORE_REJECTS`; without effect in PROD.
    pub store_rejects: bool,
    pub payload_bytes_max: Option<i64>,
    pub rate_per_s: Option<f64>,
    pub burst: Option<f64>,
}

impl AppSettings {
    /// Reads rows as the Python service did: a value that is no number counts as its default.
    pub fn of_rows<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut settings = Self::default();
        for (key, value) in rows {
            match key {
                "MODE" => settings.dev = value.to_uppercase() == "DEV",
                "STORE_REJECTS" => settings.store_rejects = value == "1",
                "MAX_PAYLOAD_BYTES" => settings.payload_bytes_max = Some(python_int(value).unwrap_or(8192)),
                "RATE_LIMIT_RPS" => settings.rate_per_s = Some(python_float(value).unwrap_or(5.0)),
                "RATE_LIMIT_BURST" => settings.burst = Some(python_float(value).unwrap_or(20.0)),
                _ => {}
            }
        }
        settings
    }

    /// True if refused messages are stored in quarantine_events.
    pub fn stores_events(&self) -> bool {
        self.dev && self.store_rejects
    }
}

/// Reads the table.
///
/// # Errors
/// The database's error.
pub async fn read(server: &PgServer, client: &Client) -> Result<AppSettings, PgError> {
    let all = "SELECT key::text, value::text FROM app_settings WHERE key IS NOT NULL AND value IS NOT NULL";
    let rows = server.within("reading app_settings", client.query(all, &[])).await?;
    let rows: Vec<(&str, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (key, value) in rows.iter().filter(|(key, value)| !is_readable(key, value)) {
        warn_once_a_value(key, value);
    }
    Ok(AppSettings::of_rows(rows.into_iter()))
}

/// True if a value is a number, or its key needs none.
fn is_readable(key: &str, value: &str) -> bool {
    match key {
        "MAX_PAYLOAD_BYTES" => python_int(value).is_some(),
        "RATE_LIMIT_RPS" | "RATE_LIMIT_BURST" => python_float(value).is_some(),
        _ => true,
    }
}

/// Logs wrong values, each once: the table is read every few seconds.
fn warn_once_a_value(key: &str, value: &str) {
    static SAID: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let before = SAID.lock().insert(key.to_owned(), value.to_owned());
    if before.as_deref() != Some(value) {
        tracing::warn!(key, value, "the row of app_settings is no number, and counts as the default");
    }
}

/// The text without Python's blanks around it, and without underscores between digits.
fn without_underscores(text: &str) -> Option<String> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
    let bytes = text.as_bytes();
    let is_digit =
        |place: Option<usize>| place.and_then(|place| bytes.get(place)).is_some_and(u8::is_ascii_digit);
    for (place, _) in text.match_indices('_') {
        if !is_digit(place.checked_sub(1)) || !is_digit(Some(place + 1)) {
            return None;
        }
    }
    Some(text.replace('_', ""))
}

/// Python's `int()` of a text; a number outside 64 bits becomes the nearest inside.
fn python_int(text: &str) -> Option<i64> {
    let text = without_underscores(text)?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let most = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(most))
}

/// Python's `float()` of a text.
fn python_float(text: &str) -> Option<f64> {
    without_underscores(text)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        for (text, number) in [
            ("8192", Some(8192)),
            (" 1_000\n", Some(1000)),
            ("+7", Some(7)),
            ("-1", Some(-1)),
            ("007", Some(7)),
            ("99999999999999999999", Some(i64::MAX)),
            ("8192.0", None),
            ("1__0", None),
            ("_1", None),
            ("1_", None),
            ("", None),
            ("abc", None),
            ("0x10", None),
            ("1 0", None),
        ] {
            assert_eq!(python_int(text), number, "{text:?}");
        }
        for (text, number) in
            [("5", 5.0), (" 2.5 ", 2.5), ("1_0.5", 10.5), ("1e3", 1000.0), ("-Infinity", f64::NEG_INFINITY)]
        {
            assert_eq!(python_float(text), Some(number), "{text:?}");
        }
        assert!(python_float("nan").unwrap().is_nan());
        assert_eq!(python_float("1._0"), None);
        assert_eq!(python_float("five"), None);
    }

    #[test]
    fn a_value_that_is_no_number_is_the_default_and_a_row_that_is_not_there_is_none() {
        let of = |rows: &[(&'static str, &'static str)]| AppSettings::of_rows(rows.iter().copied());
        assert_eq!(of(&[("MAX_PAYLOAD_BYTES", "abc")]).payload_bytes_max, Some(8192));
        assert_eq!(of(&[("RATE_LIMIT_BURST", "x")]).burst, Some(20.0));
        assert_eq!(of(&[]), AppSettings::default());
        assert!(!is_readable("MAX_PAYLOAD_BYTES", "abc") && !is_readable("RATE_LIMIT_RPS", ""));
        assert!(is_readable("RATE_LIMIT_RPS", " 2.5 ") && is_readable("MODE", "abc"));
        let stores = |mode, store| of(&[("MODE", mode), ("STORE_REJECTS", store)]).stores_events();
        assert!(stores("DEV", "1") && stores("dev", "1"));
        assert!(!stores(" DEV", "1") && !stores("PROD", "1") && !stores("DEV", "true"));
    }
}

//! Families about the gateway itself.

use std::time::SystemTime;

use super::Family;
use crate::telemetry::expiry::Certificate;
use crate::telemetry::handles::Handles;
use crate::telemetry::logs;
use crate::telemetry::sample::Sample;

pub fn families(handles: &Handles) -> Vec<Family> {
    vec![
        Family::gauge(
            "tidegate_certificate_expires_timestamp_seconds",
            "End of the validity of the gateway's certificates, in seconds since 1970, by key",
            handles.certificates().into_iter().map(expiry).collect(),
        ),
        Family::counter(
            "tidegate_log_lines_dropped",
            "Lines of the log that were dropped, because stderr was not read",
            Sample::bare(logs::dropped_lines() as f64),
        ),
    ]
}

fn expiry((key, not_after): Certificate) -> Sample {
    let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Sample::new(vec![("key", key.to_owned())], seconds as f64)
}

//! Families about the gateway itself.

use std::time::SystemTime;

use super::Family;
use crate::telemetry::expiry::Certificate;
use crate::telemetry::handles::Handles;
use crate::telemetry::health::PartHealth;
use crate::telemetry::logs;
use crate::telemetry::readiness::readiness;
use crate::telemetry::sample::Sample;

pub fn families(handles: &Handles) -> Vec<Family> {
    let readiness = readiness(handles);
    let parts = readiness.parts();
    let of_parts = |is_so: fn(&PartHealth) -> bool| -> Vec<Sample> {
        let sample = |(part, health): (&str, &PartHealth)| {
            Sample::new(vec![("part", part.to_owned())], f64::from(u8::from(is_so(health))))
        };
        parts.into_iter().map(sample).collect()
    };
    vec![
        Family::gauge(
            "tidegate_ready",
            "1 if the part can do its work. The gateway takes messages while source, registry and spool can",
            of_parts(|health| health.ready),
        ),
        Family::gauge(
            "tidegate_degraded",
            "1 if the part does its work, and something about it needs a person or time; /readyz says what",
            of_parts(|health| health.ready && health.why.is_some()),
        ),
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

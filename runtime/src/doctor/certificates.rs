//! The certificates that the configuration names, and how long they are valid.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::doctor::finding::{Finding, Level};
use crate::limits::CERTIFICATE_NEAR_DAYS;
use crate::source::listener::first_expiry;

const CHECK: &str = "certificate";

const DAY: Duration = Duration::from_secs(86_400);

pub fn check(config: &Config) -> Vec<Finding> {
    let files = [
        ("listen.tls_cert_file", &config.listen.tls_cert_file),
        ("listen.client_ca_file", &config.listen.client_ca_file),
        ("mqtt.ca_file", &config.mqtt.ca_file),
    ];
    let named = files.into_iter().filter(|(_, file)| !file.is_empty());
    named.map(|(key, file)| judge(key, first_expiry(Path::new(file)), SystemTime::now())).collect()
}

fn judge(key: &str, expiry: Result<SystemTime, String>, now: SystemTime) -> Finding {
    let end = match expiry {
        Ok(end) => end,
        Err(fault) => {
            let state = format!("{key} cannot be read: {fault}.");
            return Finding::new(CHECK, Level::Error, state, format!("Name a PEM file in {key}."));
        }
    };
    let advice = format!("Renew it: the gateway reads a changed {key} by itself.");
    let days = |duration: Duration| duration.as_secs() / DAY.as_secs();
    match end.duration_since(now) {
        Ok(left) if left >= DAY * CERTIFICATE_NEAR_DAYS as u32 => {
            Finding::ok(CHECK, format!("{key} is valid for {} more days.", days(left)))
        }
        Ok(left) => {
            let state = format!("{key} is valid for {} more days only.", days(left));
            Finding::new(CHECK, Level::Warning, state, advice)
        }
        Err(past) => {
            let state = format!("{key} expired {} days ago.", days(past.duration()));
            Finding::new(CHECK, Level::Error, state, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_near_or_past_its_end_is_found() {
        let now = SystemTime::now();
        let level = |expiry| judge("listen.tls_cert_file", expiry, now).level;
        assert_eq!(level(Ok(now + DAY * 60)), Level::Ok);
        assert_eq!(level(Ok(now + DAY * 3)), Level::Warning);
        assert_eq!(level(Ok(now - DAY)), Level::Error);
        assert_eq!(level(Err("no PEM".into())), Level::Error);
    }
}

//! Warnings before the gateway's own certificates expire.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// Days before the end at which the log warns.
const WARN_DAYS: [u64; 3] = [30, 7, 1];

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate: the key that names its file, and the end of its validity.
pub type Certificate = (&'static str, SystemTime);

/// The warnings that were logged.
#[derive(Debug, Default)]
pub struct ExpiryWatch(Mutex<HashMap<&'static str, (SystemTime, usize)>>);

/// The number of stages that a certificate has reached; the last is its end.
fn stage(not_after: SystemTime, now: SystemTime) -> usize {
    let left = not_after.duration_since(now).unwrap_or_default();
    let reached = WARN_DAYS.iter().filter(|&&days| left <= DAY * days as u32).count();
    reached + usize::from(left.is_zero())
}

/// The time that is left, for people; None if there is no need to hurry.
pub fn in_words((key, not_after): Certificate, now: SystemTime) -> Option<String> {
    if stage(not_after, now) == 0 {
        return None;
    }
    let left = not_after.duration_since(now).unwrap_or_default();
    let when = match (left.as_secs() / DAY.as_secs(), left.as_secs() / 3_600) {
        (_, 0) if left.is_zero() => "has expired".to_owned(),
        (0, hours) => format!("expires in {hours} hours"),
        (days, _) => format!("expires in {days} days"),
    };
    Some(format!("the certificate of {key} {when}"))
}

impl ExpiryWatch {
    /// Logs each certificate that has come nearer to its end.
    pub fn check(&self, certificates: &[Certificate], now: SystemTime) {
        for (certificate, words) in self.news(certificates, now) {
            tracing::warn!(key = certificate.0, "{words}");
        }
    }

    fn news(&self, certificates: &[Certificate], now: SystemTime) -> Vec<(Certificate, String)> {
        let mut said = self.0.lock();
        let mut news = Vec::new();
        for &(key, not_after) in certificates {
            let reached = stage(not_after, now);
            let before = said.insert(key, (not_after, reached));
            let is_new = before.is_none_or(|(of, stage)| of != not_after || stage < reached);
            if let Some(words) = in_words((key, not_after), now).filter(|_| is_new) {
                news.push(((key, not_after), words));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_thirty_seven_and_one_day_before_its_end() {
        let watch = ExpiryWatch::default();
        let end = SystemTime::UNIX_EPOCH + DAY * 1_000;
        let said = |days: f64| {
            let now = end - DAY.mul_f64(days);
            let news = watch.news(&[("listen.tls_cert_file", end)], now);
            news.into_iter().map(|(_, words)| words).next()
        };
        assert_eq!(said(31.0), None);
        assert!(said(29.5).unwrap().contains("29 days"));
        assert_eq!(said(20.0), None);
        assert!(said(6.9).unwrap().contains("6 days"));
        assert!(said(0.9).unwrap().contains("21 hours"));
        assert!(said(0.0).unwrap().contains("has expired"));
        assert_eq!(said(0.0), None);
        // A new certificate begins anew.
        let renewed = [("listen.tls_cert_file", end + DAY * 90)];
        assert!(watch.news(&renewed, end).is_empty() && in_words(renewed[0], end).is_none());
    }
}

//! The filter for entries.

use jiff::Timestamp;

use crate::entry::Entry;
use tidegate_core::reason::Reason;

/// Digits of a digest that name a guest at least: fewer could be a word.
const DIGEST_DIGITS_MIN: usize = 4;

/// A filter for entries; a part that is `None` excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub id: Option<String>,
    pub tenant: Option<String>,
    pub device: Option<String>,
    pub message_type: Option<String>,
    pub reason: Option<String>,
    /// A guest's name, its whole tag, or the first digits of its digest.
    pub guest: Option<String>,
    /// Refused at this time or later.
    pub since: Option<Timestamp>,
    /// Refused before this time.
    pub until: Option<Timestamp>,
}

/// A filter that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("unknown filter {0:?}: expected one of id, tenant, device, type, reason, guest, since, until")]
    Key(String),
    #[error("reason = {0:?}: expected a code, one of {codes}", codes = codes())]
    Reason(String),
    #[error("{key} = {value:?}: expected an RFC 3339 time, such as 2026-11-23T08:59:58Z")]
    Time { key: &'static str, value: String },
}

fn codes() -> String {
    Reason::ALL.iter().map(|reason| reason.code()).collect::<Vec<_>>().join(", ")
}

impl Filter {
    /// Sets one part, by the name that users know it by.
    ///
    /// # Errors
    /// There is no such part, or it cannot have this value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), FilterError> {
        let time = |key, value: &str| {
            value.parse().map(Some).map_err(|_| FilterError::Time { key, value: value.to_owned() })
        };
        let text = Some(value.to_owned());
        match key {
            "id" => self.id = text,
            "tenant" => self.tenant = text,
            "device" => self.device = text,
            "type" => self.message_type = text,
            "reason" if Reason::from_code(value).is_none() => return Err(FilterError::Reason(value.into())),
            "reason" => self.reason = text,
            "guest" => self.guest = text,
            "since" => self.since = time("since", value)?,
            "until" => self.until = time("until", value)?,
            other => return Err(FilterError::Key(other.to_owned())),
        }
        Ok(())
    }

    /// True if it excludes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, got: Option<&str>| {
            wanted.as_deref().is_none_or(|want| got == Some(want))
        };
        // Times of entries are all written alike, so they compare as texts.
        let text = |time: Timestamp| format!("{time:.9}");
        is(&self.id, Some(&entry.id))
            && is(&self.tenant, entry.tenant.as_deref())
            && is(&self.device, entry.device.as_deref())
            && is(&self.message_type, entry.message_type.as_deref())
            && is(&self.reason, Some(&entry.reason))
            && self
                .guest
                .as_deref()
                .is_none_or(|want| entry.guest.as_deref().is_some_and(|tag| is_guest(tag, want)))
            && self.since.is_none_or(|since| entry.time >= text(since))
            && self.until.is_none_or(|until| entry.time < text(until))
    }
}

/// True if `want` names the guest of this tag (`name@version#digest`).
fn is_guest(tag: &str, want: &str) -> bool {
    let (version, digest) = tag.rsplit_once('#').unwrap_or((tag, ""));
    let name = version.split_once('@').map_or(version, |(name, _)| name);
    let digits = want.trim_start_matches("sha256:").trim_start_matches('#');
    [tag, version, name].contains(&want)
        || digits.len() >= DIGEST_DIGITS_MIN
            && !digest.is_empty()
            && (digest.starts_with(digits) || digits.starts_with(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_named_by_its_name_its_tag_or_its_digest() {
        let tag = "pulse@1.0.0#0123456789ab";
        for want in [
            "pulse",
            "pulse@1.0.0",
            tag,
            "0123",
            "#0123456789ab",
            "sha256:0123456789abcdef",
            "0123456789ab00",
        ] {
            assert!(is_guest(tag, want), "{want}");
        }
        for want in ["pul", "puls", "1.0.0", "012", "1234", "", "pulse@1.0.1"] {
            assert!(!is_guest(tag, want), "{want}");
        }
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        let mut filter = Filter::default();
        assert!(filter.is_empty());
        assert!(matches!(filter.set("tennant", "acme"), Err(FilterError::Key(_))));
        assert!(matches!(filter.set("reason", "NO_GEST"), Err(FilterError::Reason(_))));
        assert!(matches!(filter.set("since", "yesterday"), Err(FilterError::Time { .. })));
        assert!(filter.is_empty());
        filter.set("since", "2026-11-23T08:59:58+01:00").unwrap();
        assert_eq!(filter.since.unwrap().to_string(), "2026-11-23T07:59:58Z");
    }
}

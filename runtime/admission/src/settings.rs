//! Admission's settings: the operator's, and the limits that may change while the gateway runs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::credentials::CredentialSource;
use crate::registry::postgres::app_settings::AppSettings;
use tidegate_core::message::Via;
use tidegate_core::tenant::policy::TenantPolicies;
use tidegate_core::token_bucket::Rate;
use tidegate_core::topic::TopicTemplates;

/// The treatment of a device that sends faster than its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverRate {
    /// Its connection is read no faster, where it connects to our listener; behind a broker it is refused.
    Slow,
    /// Its messages are refused.
    Refuse,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    pub topics: Arc<TopicTemplates>,
    pub payload_bytes_max: usize,
    /// The largest payload that sources keep whole: the table app_settings can raise the limit no
    /// further.
    pub payload_bytes_kept: usize,
    /// Messages of one device; None: no limit.
    pub rate: Option<Rate>,
    pub over_rate: OverRate,
    pub credentials: CredentialSource,
    /// Message types with credentials of their own.
    pub credentials_of_type: HashMap<String, CredentialSource>,
    pub require_token: bool,
    pub cache_ttl_s: f64,
    pub cache_entries_max: usize,
}

impl AdmissionSettings {
    /// True if a message over a rate waits at its source.
    pub(crate) fn slows(&self, via: Via) -> bool {
        self.over_rate == OverRate::Slow && via != Via::Broker
    }
}

/// The credentials that messages must bring, by their types.
#[derive(Clone, Debug)]
pub(crate) struct CredentialRules {
    of_all: CredentialSource,
    of_type: HashMap<String, CredentialSource>,
}

impl CredentialRules {
    /// The credentials that a message must bring.
    pub(crate) fn credentials_of(&self, message_type: &str, via: Via) -> CredentialSource {
        let configured = self.configured_credentials(message_type);
        match (configured, via) {
            // A device that connects straight to the listener has shown no broker anything, and a
            // broker's messages have proved nothing to the listener.
            (CredentialSource::Broker, Via::Broker) | (CredentialSource::Listener, Via::Proven) => configured,
            _ => CredentialSource::Envelope,
        }
    }

    /// The way of a message for which the credentials of its type are of use.
    pub(crate) fn usual_via(&self, topics: &TopicTemplates, topic: &str) -> Via {
        let fields = topics.matches(topic);
        match fields.map(|fields| self.configured_credentials(fields.message_type.of(topic))) {
            Some(CredentialSource::Listener) => Via::Proven,
            _ => Via::Broker,
        }
    }

    fn configured_credentials(&self, message_type: &str) -> CredentialSource {
        self.of_type.get(message_type).copied().unwrap_or(self.of_all)
    }
}

/// The limits that may change while the gateway runs.
#[derive(Debug)]
pub(crate) struct LiveLimits {
    pub(super) payload_bytes_max: i64,
    pub(super) rate: Option<Rate>,
    pub(super) credentials: Arc<CredentialRules>,
}

impl LiveLimits {
    pub(crate) fn new(configured: &AdmissionSettings) -> Self {
        let credentials = CredentialRules {
            of_all: configured.credentials,
            of_type: configured.credentials_of_type.clone(),
        };
        Self {
            payload_bytes_max: configured.payload_bytes_max as i64,
            rate: configured.rate,
            credentials: Arc::new(credentials),
        }
    }

    /// Applies other message types with credentials of their own.
    pub(crate) fn set_credentials_of_types(&mut self, of_type: HashMap<String, CredentialSource>) {
        self.credentials = Arc::new(CredentialRules { of_all: self.credentials.of_all, of_type });
    }

    /// Applies the table app_settings; a key that is not there is as configured. Logs a change.
    pub(crate) fn apply(&mut self, configured: &AdmissionSettings, table: &AppSettings) {
        let kept = configured.payload_bytes_kept as i64;
        let wanted = table.payload_bytes_max.unwrap_or(configured.payload_bytes_max as i64);
        let rate = match (table.rate_per_s, table.burst) {
            (None, None) => configured.rate,
            (per_s, burst) => Some(Rate {
                per_s: per_s.or(configured.rate.map(|rate| rate.per_s)).unwrap_or(5.0),
                burst: burst.or(configured.rate.map(|rate| rate.burst)).unwrap_or(20.0),
            }),
        };
        let payload_bytes_max = wanted.min(kept);
        let old = (self.payload_bytes_max, self.rate);
        (self.payload_bytes_max, self.rate) = (payload_bytes_max, rate);
        // Debug text and not equality: a rate may be NaN.
        if format!("{old:?}") != format!("{:?}", (payload_bytes_max, rate)) {
            tracing::info!(payload_bytes_max, ?rate, "settings were changed by the registry's table");
            if wanted > kept {
                tracing::warn!(wanted, kept, "MAX_PAYLOAD_BYTES is over what is kept of a payload");
            }
        }
    }
}

/// The limits of all tenants at one moment: read once a group of messages.
#[derive(Debug)]
pub(super) struct Snapshot {
    payload_bytes_max: i64,
    rate: Option<Rate>,
    pub(super) credentials: Arc<CredentialRules>,
    policies: Arc<TenantPolicies>,
}

impl Snapshot {
    pub(super) fn new(live: &LiveLimits, policies: Arc<TenantPolicies>) -> Self {
        let credentials = live.credentials.clone();
        Self { payload_bytes_max: live.payload_bytes_max, rate: live.rate, credentials, policies }
    }

    /// The limits of one message; `tenant` is a name, for a rate holds before the device is known.
    pub(super) fn limits_for(&self, tenant: Option<&str>) -> EffectiveLimits {
        let (rate, tenant_rate) = match tenant.map(|tenant| self.policies.terms_of(tenant)) {
            Some(terms) => (terms.device_rate.over(self.rate), terms.tenant_rate),
            None => (self.rate, None),
        };
        EffectiveLimits { payload_bytes_max: self.payload_bytes_max, rate, tenant_rate }
    }
}

/// The limits of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct EffectiveLimits {
    pub(super) payload_bytes_max: i64,
    /// The rate of its device.
    pub(super) rate: Option<Rate>,
    /// The rate of all devices of its tenant together.
    pub(super) tenant_rate: Option<Rate>,
}

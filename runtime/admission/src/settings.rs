//! What admission is told by the operator, and what of it may change while the gateway runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admission::Admission;
use crate::credentials::CredentialSource;
use crate::registry::postgres::app_settings::AppSettings;
use tidegate_core::tenant::policy::TenantPolicies;
use tidegate_core::token_bucket::Rate;
use tidegate_core::topic::TopicTemplate;

/// What admission is told by the operator.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    pub template: TopicTemplate,
    pub payload_bytes_max: usize,
    /// What sources keep whole: a settings table can raise the ceiling no further.
    pub payload_bytes_kept: usize,
    /// None: no limit.
    pub rate: Option<Rate>,
    pub credentials: CredentialSource,
    /// Message types with credentials of their own.
    pub credentials_of_type: HashMap<String, CredentialSource>,
    pub require_token: bool,
    pub cache_ttl_s: f64,
    pub cache_entries_max: usize,
}

/// What may change while the gateway runs.
#[derive(Debug)]
pub(crate) struct LiveLimits {
    pub(super) payload_bytes_max: i64,
    pub(super) rate: Option<Rate>,
}

/// What holds for all tenants at one moment: read once a group of messages.
#[derive(Debug)]
pub(super) struct Snapshot {
    payload_bytes_max: i64,
    rate: Option<Rate>,
    policies: Arc<TenantPolicies>,
}

impl Snapshot {
    /// `tenant`: by its name, for a device's rate holds before the device is known.
    pub(super) fn limits_for(&self, tenant: Option<&str>) -> EffectiveLimits {
        let (rate, tenant_rate) = match tenant.map(|tenant| self.policies.terms_of(tenant)) {
            Some(terms) => (terms.device_rate.over(self.rate), terms.tenant_rate),
            None => (self.rate, None),
        };
        EffectiveLimits { payload_bytes_max: self.payload_bytes_max, rate, tenant_rate }
    }
}

/// What holds for one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct EffectiveLimits {
    pub(super) payload_bytes_max: i64,
    /// Of its device, and of all devices of its tenant together.
    pub(super) rate: Option<Rate>,
    pub(super) tenant_rate: Option<Rate>,
}

impl Admission {
    /// Turns the knobs of a settings table; what it does not name is as configured.
    pub fn apply_app_settings(&self, knobs: &AppSettings) {
        let configured = &self.settings;
        let kept = configured.payload_bytes_kept as i64;
        let wanted = knobs.payload_bytes_max.unwrap_or(configured.payload_bytes_max as i64);
        let rate = match (knobs.rate_per_s, knobs.burst) {
            (None, None) => configured.rate,
            (per_s, burst) => Some(Rate {
                per_s: per_s.or(configured.rate.map(|rate| rate.per_s)).unwrap_or(5.0),
                burst: burst.or(configured.rate.map(|rate| rate.burst)).unwrap_or(20.0),
            }),
        };
        let payload_bytes_max = wanted.min(kept);
        let was = {
            let mut live = self.live.write();
            let payload_bytes_max = std::mem::replace(&mut live.payload_bytes_max, payload_bytes_max);
            (payload_bytes_max, std::mem::replace(&mut live.rate, rate))
        };
        // Debug text and not equality: a rate may be NaN.
        if format!("{was:?}") != format!("{:?}", (payload_bytes_max, rate)) {
            tracing::info!(payload_bytes_max, ?rate, "settings were changed by the registry's table");
            if wanted > kept {
                tracing::warn!(wanted, kept, "MAX_PAYLOAD_BYTES is over what is kept of a payload");
            }
        }
    }

    /// What holds now. Devices are asked about anew where their tenants missed a change of settings.
    pub(super) fn snapshot(&self) -> Snapshot {
        let missed = self.tenants.missed();
        if self.tenants_missed.load(Ordering::Relaxed) != missed
            && self.tenants_missed.swap(missed, Ordering::AcqRel) != missed
        {
            self.cache.clear();
        }
        let policies = self.tenants.policies();
        let live = self.live.read();
        Snapshot { payload_bytes_max: live.payload_bytes_max, rate: live.rate, policies }
    }
}

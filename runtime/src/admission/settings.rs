//! What admission is told by the operator, and what of it may change while the gateway runs.

use std::collections::HashMap;

use super::rates::TenantRates;
use super::registry::postgres::knobs::Knobs;
use super::{Admission, Credentials};
use crate::domain::limits;
use crate::domain::rate::Rate;
use crate::domain::tenancy::Tenancy;
use crate::domain::topic::TopicTemplate;

/// What admission is told by the operator.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    pub template: TopicTemplate,
    pub payload_bytes_max: usize,
    /// What sources keep whole: a settings table can raise the ceiling no further.
    pub payload_bytes_kept: usize,
    /// None: no limit.
    pub rate: Option<Rate>,
    pub credentials: Credentials,
    /// Message types with credentials of their own.
    pub credentials_of_type: HashMap<String, Credentials>,
    pub require_token: bool,
    pub cache_ttl_s: f64,
    pub cache_entries_max: usize,
    pub tenancy: Tenancy,
    pub tenant_rates: TenantRates,
}

/// What may change while the gateway runs.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) payload_bytes_max: i64,
    pub(super) rate: Option<Rate>,
    pub(super) tenant_rates: TenantRates,
}

/// What holds for one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds {
    pub(super) payload_bytes_max: i64,
    /// Of its device, and of all devices of its tenant together.
    pub(super) rate: Option<Rate>,
    pub(super) tenant_rate: Option<Rate>,
}

impl Admission {
    /// Turns the knobs of a settings table; what it does not name is as configured.
    pub fn turn(&self, knobs: &Knobs) {
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

    /// From now on these hold for tenants; also for those that are known.
    pub fn set_tenants(&self, tenancy: Tenancy, tenant_rates: TenantRates) {
        self.live.write().tenant_rates = tenant_rates;
        *self.tenancy.write() = tenancy;
        let tenancy = self.tenancy.read();
        for tenant in &self.tenants {
            tenant.set_rules(tenancy.rules_of(tenant.key().as_str()));
        }
        if self.tenants.len() >= limits::TENANTS_MAX {
            // Tenants beyond those that are kept stand only beside their devices.
            self.cache.clear();
        }
    }

    pub(super) fn holds_for(&self, tenant: Option<&str>) -> Holds {
        let live = self.live.read();
        let (rate, tenant_rate) = match tenant {
            Some(tenant) => live.tenant_rates.of(tenant, live.rate),
            None => (live.rate, None),
        };
        Holds { payload_bytes_max: live.payload_bytes_max, rate, tenant_rate }
    }
}

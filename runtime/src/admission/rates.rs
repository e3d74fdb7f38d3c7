//! How fast messages may come: a device, and all devices of a tenant together.

use std::collections::HashMap;

use crate::domain::rate::Rate;

/// The rates of one tenant where they differ from what holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnRates {
    /// Of each device; 0: no limit.
    pub per_s: Option<f64>,
    pub burst: Option<f64>,
    /// Of all its devices together; 0: no limit.
    pub tenant_per_s: Option<f64>,
    pub tenant_burst: Option<f64>,
}

/// The rates of all tenants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantRates {
    /// The burst of a device where none is limited but by its tenant's own rate.
    pub burst: f64,
    /// Of all devices of a tenant together; 0: no limit.
    pub tenant_per_s: f64,
    pub tenant_burst: f64,
    pub own: HashMap<Box<str>, OwnRates>,
}

impl TenantRates {
    /// The rate of a tenant's devices, and that of all of them together. `common`: what holds for a
    /// device of any tenant now.
    pub fn of(&self, tenant: &str, common: Option<Rate>) -> (Option<Rate>, Option<Rate>) {
        let own = if self.own.is_empty() { None } else { self.own.get(tenant) };
        let Some(own) = own else {
            return (common, limit(self.tenant_per_s, self.tenant_burst));
        };
        let device = match (own.per_s, own.burst) {
            (None, None) => common,
            (per_s, burst) => limit(
                per_s.unwrap_or(common.map_or(0.0, |rate| rate.per_s)),
                burst.unwrap_or(common.map_or(self.burst, |rate| rate.burst)),
            ),
        };
        let together = limit(
            own.tenant_per_s.unwrap_or(self.tenant_per_s),
            own.tenant_burst.unwrap_or(self.tenant_burst),
        );
        (device, together)
    }
}

/// A rate; 0 messages a second stand for no limit.
fn limit(per_s: f64, burst: f64) -> Option<Rate> {
    (per_s > 0.0).then_some(Rate { per_s, burst })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_rates_win_for_what_they_name() {
        let own = |per_s, burst| OwnRates { per_s, burst, ..OwnRates::default() };
        let rates = TenantRates {
            burst: 20.0,
            tenant_per_s: 100.0,
            tenant_burst: 200.0,
            own: HashMap::from([
                ("fast".into(), own(Some(50.0), None)),
                ("free".into(), own(Some(0.0), None)),
                ("bursty".into(), own(None, Some(7.0))),
                ("apart".into(), OwnRates { tenant_per_s: Some(0.0), ..OwnRates::default() }),
            ]),
        };
        let common = Some(Rate { per_s: 5.0, burst: 20.0 });
        let together = Some(Rate { per_s: 100.0, burst: 200.0 });
        assert_eq!(rates.of("other", common), (common, together));
        assert_eq!(rates.of("fast", common).0, Some(Rate { per_s: 50.0, burst: 20.0 }));
        assert_eq!(rates.of("fast", None).0, Some(Rate { per_s: 50.0, burst: 20.0 }));
        assert_eq!(rates.of("free", common), (None, together));
        assert_eq!(rates.of("bursty", common).0, Some(Rate { per_s: 5.0, burst: 7.0 }));
        assert_eq!(rates.of("bursty", None).0, None, "a burst alone limits nobody");
        assert_eq!(rates.of("apart", common), (common, None));
    }
}

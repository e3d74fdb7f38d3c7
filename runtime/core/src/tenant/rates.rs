//! Rates of messages: of each device of a tenant, and of all its devices together.

use crate::token_bucket::Rate;

/// The rate of each device of a tenant, if it differs from the common one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceRate {
    /// Messages a second; 0: no limit.
    pub per_s: Option<f64>,
    pub burst: Option<f64>,
    /// The burst of a rate without its own, while no common rate limits a device.
    pub burst_default: f64,
}

impl DeviceRate {
    /// The rate of a device. `common`: the rate of all tenants, which may change at any time.
    pub fn over(&self, common: Option<Rate>) -> Option<Rate> {
        match (self.per_s, self.burst) {
            (None, None) => common,
            (per_s, burst) => limit(
                per_s.unwrap_or(common.map_or(0.0, |rate| rate.per_s)),
                burst.unwrap_or(common.map_or(self.burst_default, |rate| rate.burst)),
            ),
        }
    }
}

/// A rate; `None`, no limit, for 0 messages a second.
pub fn limit(per_s: f64, burst: f64) -> Option<Rate> {
    (per_s > 0.0).then_some(Rate { per_s, burst })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_bucket::Rate;

    #[test]
    fn own_rates_win_for_what_they_name() {
        let own = |per_s, burst| DeviceRate { per_s, burst, burst_default: 20.0 };
        let common = Some(Rate { per_s: 5.0, burst: 20.0 });
        let (fast, free, bursty) = (own(Some(50.0), None), own(Some(0.0), None), own(None, Some(7.0)));
        assert_eq!(own(None, None).over(common), common);
        assert_eq!(fast.over(common), Some(Rate { per_s: 50.0, burst: 20.0 }));
        assert_eq!(fast.over(None), Some(Rate { per_s: 50.0, burst: 20.0 }));
        assert_eq!(free.over(common), None);
        assert_eq!(bursty.over(common), Some(Rate { per_s: 5.0, burst: 7.0 }));
        assert_eq!(bursty.over(None), None, "a burst alone limits nobody");
        assert_eq!(limit(0.0, 7.0), None);
    }
}

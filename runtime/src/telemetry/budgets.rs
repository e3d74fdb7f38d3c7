//! The samples of the metric of budgets.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::books::OTHER_TENANTS;
use crate::core::tenant::budget_kind::Resource;
use crate::core::tenant::budgets::{BudgetPair, Budgets};
use crate::telemetry::sample::Sample;

/// The label of the gateway's own budgets.
const ALL_TENANTS: &str = "_all";

/// Bytes in use by tenant and kind, and the bound of each budget. `labels`: the tenants with a label of
/// their own; the others are summed.
pub(crate) fn samples(budgets: &Budgets, labels: &BTreeSet<String>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut others: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (tenant, pair) in budgets.all() {
        if labels.contains(tenant.as_str()) {
            add(&mut samples, tenant.as_str(), &pair);
            continue;
        }
        for resource in Resource::ALL {
            *others.entry(resource.as_str()).or_default() += pair.of(resource).used();
            for kind in resource.kinds() {
                *others.entry(kind.as_str()).or_default() += pair.of(resource).used_by(*kind);
            }
        }
    }
    for (kind, used) in others.into_iter().filter(|(_, used)| *used > 0) {
        samples.push(sample(OTHER_TENANTS, kind, "used", used));
    }
    add(&mut samples, ALL_TENANTS, budgets.gateway());
    samples
}

/// The samples of one tenant. Kinds of which it has nothing are left out.
fn add(samples: &mut Vec<Sample>, tenant: &str, pair: &BudgetPair) {
    for resource in Resource::ALL {
        let budget = pair.of(resource);
        samples.push(sample(tenant, resource.as_str(), "used", budget.used()));
        samples.push(sample(tenant, resource.as_str(), "max", budget.max()));
        let kinds = resource.kinds().iter().map(|kind| (kind.as_str(), budget.used_by(*kind)));
        samples.extend(
            kinds.filter(|(_, used)| *used > 0).map(|(kind, used)| sample(tenant, kind, "used", used)),
        );
    }
}

fn sample(tenant: &str, kind: &str, of: &str, bytes: u64) -> Sample {
    let labels = vec![("tenant", tenant.to_owned()), ("kind", kind.to_owned()), ("of", of.to_owned())];
    Sample::new(labels, bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tenant::budget_kind::BudgetKind::{Spool, State};
    use crate::core::tenant::budgets::{BudgetLimits, BudgetShare, Budgets};

    #[test]
    fn tenants_with_a_label_have_their_own_samples_and_the_others_one_sum() {
        let budgets = Budgets::new(BudgetLimits { tenant_memory_bytes_max: 100, ..BudgetLimits::UNLIMITED });
        let charge = |tenant: &str, bytes: u64| {
            let pair = budgets.get(tenant, BudgetShare::default);
            (pair.memory.charge(State, bytes), pair.disk.charge(Spool, bytes))
        };
        let _charges = [charge("acme", 5), charge("b", 7), charge("c", 11)];
        let labels = [(String::from("acme"))].into();
        let shown: Vec<String> = samples(&budgets, &labels)
            .into_iter()
            .map(|sample| {
                let labels: Vec<&str> = sample.labels.iter().map(|(_, value)| value.as_str()).collect();
                format!("{} {}", labels.join("/"), sample.value)
            })
            .collect();
        for expected in [
            "acme/memory/used 5",
            "acme/memory/max 100",
            "acme/state/used 5",
            "acme/spool/used 5",
            "_other/state/used 18",
            "_other/disk/used 18",
            "_all/memory/used 23",
            "_all/spool/used 23",
        ] {
            assert!(shown.iter().any(|sample| sample == expected), "{expected}: {shown:?}");
        }
        assert!(!shown.iter().any(|sample| sample.starts_with("b/") || sample.contains("instances")));
    }
}

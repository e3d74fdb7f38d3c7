//! The table of tenants.
//!
//! - Each tenant is there once: all parts of the gateway that work with it have the same `Arc`.
//! - Policies are applied to all of them at once. A part reads the settings when it begins a group of
//!   messages, so no part needs a notice of a change. The one exception is a tenant's output: lines that
//!   wait for the old one have to be moved.
//! - The spool knows tenants by names on the disk, and admission those without an authenticated
//!   device yet. Both look up by name, which makes no tenant.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::RwLock;

use crate::books::{Account, Books};
use crate::ids::TenantId;
use crate::limits::TENANTS_MAX;
use crate::tenant::Tenant;
use crate::tenant::budgets::{BudgetLimits, BudgetPair, Budgets};
use crate::tenant::policy::TenantPolicies;
use crate::tenant::settings::{OutputId, SpoolShare};

/// The tenants that passed admission since the start, at most `TENANTS_MAX`, and the policies of all.
#[derive(Debug)]
pub struct Tenants {
    books: Arc<Books>,
    budgets: Budgets,
    policies: RwLock<Arc<TenantPolicies>>,
    tenants: DashMap<TenantId, Arc<Tenant>, foldhash::fast::RandomState>,
    /// Policies that were applied while the table was full.
    missed: AtomicU64,
}

impl Tenants {
    /// A table of tenants whose budgets refuse nothing.
    pub fn new(policies: TenantPolicies, books: Arc<Books>) -> Self {
        Self {
            books,
            budgets: Budgets::new(BudgetLimits::UNLIMITED),
            policies: RwLock::new(Arc::new(policies)),
            tenants: DashMap::default(),
            missed: AtomicU64::new(0),
        }
    }

    /// Sets the budgets of the gateway and of its tenants.
    pub fn with_budgets(self, limits: BudgetLimits) -> Self {
        Self { budgets: Budgets::new(limits), ..self }
    }

    /// The budgets of the gateway, and of all tenants that have some.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The budgets of a tenant, whoever names it.
    pub fn budgets_of(&self, tenant: &str) -> BudgetPair {
        self.budgets.get(tenant, || self.policies.read().terms_of(tenant).budget)
    }

    /// The accounts of these tenants.
    pub fn books(&self) -> &Arc<Books> {
        &self.books
    }

    /// The present policies.
    pub fn policies(&self) -> Arc<TenantPolicies> {
        self.policies.read().clone()
    }

    /// A tenant that passed admission. Beyond `TENANTS_MAX` each call makes one, which no later change
    /// of its settings reaches: see `missed`.
    pub fn get(&self, name: &str) -> Arc<Tenant> {
        if let Some(tenant) = self.tenants.get(name) {
            return tenant.clone();
        }
        let id = TenantId::new(name);
        let account = self.books.of_known(name);
        let budgets = self.budgets_of(name);
        // Locked until it is in the table: `apply` finds it there, or it has the new settings.
        let policies = self.policies.read();
        let make =
            || Arc::new(Tenant::new(id.clone(), account, policies.rules_of(name)).with_budgets(budgets));
        match self.tenants.len() < TENANTS_MAX {
            true => self.tenants.entry(id.clone()).or_insert_with(make).clone(),
            false => make(),
        }
    }

    /// A tenant that passed admission before.
    pub fn known(&self, name: &str) -> Option<Arc<Tenant>> {
        self.tenants.get(name).map(|tenant| tenant.clone())
    }

    /// A tenant for a message that is not counted: a known one, or one that is not kept.
    pub fn uncounted(&self, name: &str) -> Arc<Tenant> {
        self.known(name).unwrap_or_else(|| {
            let id = TenantId::new(name);
            let account = Arc::new(Account::new(id.clone()));
            Arc::new(Tenant::new(id, account, self.policies.read().rules_of(name)))
        })
    }

    /// A tenant's share of the spool.
    pub fn spool_share(&self, tenant: &TenantId) -> SpoolShare {
        self.policies.read().terms_of(tenant.as_str()).spool
    }

    /// A tenant's output; `None`: the common one.
    pub fn output(&self, tenant: &TenantId) -> Option<OutputId> {
        self.policies.read().terms_of(tenant.as_str()).output
    }

    /// Every output that a policy names.
    pub fn outputs(&self) -> HashSet<OutputId> {
        self.policies.read().named().filter_map(|(_, terms)| terms.output).collect()
    }

    /// Changes of policies that tenants beyond the table have missed. A part that keeps an `Arc<Tenant>`
    /// forgets it when this number has changed.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Acquire)
    }

    /// Applies policies, also to tenants that are known. Gives those whose output has
    /// changed: lines of theirs that wait are to be moved. Calls must not overlap.
    pub fn apply(&self, policies: TenantPolicies) -> Vec<TenantId> {
        let after = Arc::new(policies);
        let before = std::mem::replace(&mut *self.policies.write(), after.clone());
        self.budgets.apply(|name| after.terms_of(name).budget);
        for tenant in &self.tenants {
            tenant.set_settings(after.rules_of(tenant.key().as_str()));
        }
        if self.tenants.len() >= TENANTS_MAX {
            self.missed.fetch_add(1, Ordering::AcqRel);
        }
        let names: HashSet<&str> = before.named().chain(after.named()).map(|(name, _)| name).collect();
        let has_moved = |name: &&str| before.terms_of(name).output != after.terms_of(name).output;
        names.into_iter().filter(has_moved).map(TenantId::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::Books;
    use crate::ids::TenantId;
    use crate::tenant::Tenant;
    use crate::tenant::database::{DatabaseTemplate, NameRule};
    use crate::tenant::policy::{TenantPolicies, TenantPolicy};
    use crate::tenant::settings::{OutputId, SpoolShare, WhenFull};
    use std::collections::HashSet;
    use std::sync::{Arc, Barrier};

    fn terms(database: &str) -> TenantPolicy {
        TenantPolicy::plain(DatabaseTemplate::new(database, NameRule::InfluxDb3))
    }

    fn tenants() -> Tenants {
        Tenants::new(TenantPolicies::new(terms("telemetry_{tenant}")), Arc::new(Books::default()))
    }

    #[test]
    fn threads_that_ask_for_a_new_tenant_at_once_get_the_same_one() {
        for _ in 0..50 {
            let (tenants, barrier) = (tenants(), Barrier::new(4));
            let got: Vec<Arc<Tenant>> = std::thread::scope(|scope| {
                let ask = || {
                    barrier.wait();
                    tenants.get("acme")
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let known = tenants.known("acme").unwrap();
            assert!(got.iter().all(|tenant| Arc::ptr_eq(tenant, &known)));
            assert!(Arc::ptr_eq(&tenants.uncounted("acme"), &known));
            assert!(Arc::ptr_eq(&known.account, &tenants.books().of_known("acme")));
        }
    }

    #[test]
    fn asking_by_name_makes_no_tenant() {
        let tenants = tenants();
        assert_eq!(tenants.uncounted("x").database().unwrap().as_str(), "telemetry_x");
        assert_eq!(tenants.spool_share(&"x".into()), SpoolShare::default());
        assert!(tenants.known("x").is_none() && tenants.books().accounts().is_empty());
    }

    #[test]
    fn a_change_reaches_a_tenant_that_is_known_and_only_its_output_is_told_of() {
        let tenants = tenants();
        let (acme, globex) = (tenants.get("acme"), tenants.get("globex"));
        let policies = |own: TenantPolicy, output: Option<u64>| {
            let mut policies = TenantPolicies::new(terms("telemetry_{tenant}"));
            policies.name("acme", own);
            policies.name("initech", TenantPolicy { output: output.map(OutputId::new), ..terms("x") });
            policies
        };
        let share = SpoolShare { bytes_max: Some(5), when_full: Some(WhenFull::DropOldest) };
        let own = TenantPolicy { spool: share, cpu_share: Some(0.5), ..terms("own") };
        let moved = tenants.apply(policies(own.clone(), Some(1)));
        assert_eq!(moved, [TenantId::new("initech")]);
        assert_eq!((acme.database().unwrap().as_str(), acme.cpu_share()), ("own", Some(0.5)));
        assert_eq!((acme.settings().spool, tenants.spool_share(&acme.id)), (share, share));
        assert_eq!(globex.database().unwrap().as_str(), "telemetry_globex");
        assert_eq!(tenants.output(&"initech".into()), Some(OutputId::new(1)));

        assert!(tenants.apply(policies(own.clone(), Some(1))).is_empty());
        let moved = tenants.apply(policies(TenantPolicy { output: Some(OutputId::new(1)), ..own }, None));
        let moved: HashSet<TenantId> = moved.into_iter().collect();
        assert_eq!(moved, HashSet::from(["acme".into(), "initech".into()]));
        assert_eq!(tenants.outputs(), HashSet::from([OutputId::new(1)]));
        assert!(Arc::ptr_eq(&acme, &tenants.get("acme")));
        assert_eq!(tenants.missed(), 0);
    }
}

//! A budget in bytes, to which everything that is kept is charged.
//!
//! - A tenant's budget is a part of the gateway's: a charge takes room in both, or in none.
//! - A charge is a guard: its bytes are free again when it is dropped.
//! - While three quarters of the gateway's budget are in use, a tenant may hold at most an even part of
//!   those. So the last quarter is for tenants that hold little, and no tenant takes all of it.
//! - A charge costs some atomic operations: it is for batches, instances and files, not for messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::TenantId;
use crate::tenant::budget_kind::{BudgetKind, KINDS, Resource};
use crate::tenant::over_budget::{BudgetBound, OverBudget};

/// A bound in bytes. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: of the gateway.
    tenant: Option<TenantId>,
    resource: Resource,
    max: AtomicU64,
    used: AtomicU64,
    used_by: [AtomicU64; KINDS],
    /// Tenants with charges, of the gateway's budget.
    holders: AtomicU64,
    parent: Option<Budget>,
}

impl Budget {
    fn new(tenant: Option<TenantId>, resource: Resource, max: u64, parent: Option<Budget>) -> Self {
        Self(Arc::new(Inner {
            tenant,
            resource,
            max: AtomicU64::new(max),
            used: AtomicU64::new(0),
            used_by: std::array::from_fn(|_| AtomicU64::new(0)),
            holders: AtomicU64::new(0),
            parent,
        }))
    }

    /// The gateway's budget of a resource.
    pub fn gateway(resource: Resource, max: u64) -> Self {
        Self::new(None, resource, max, None)
    }

    /// A budget that refuses nothing: of trials and dry runs.
    pub fn unlimited(resource: Resource) -> Self {
        Self::gateway(resource, u64::MAX)
    }

    /// A tenant's part of this budget.
    pub fn of_tenant(&self, tenant: TenantId, max: u64) -> Self {
        Self::new(Some(tenant), self.0.resource, max, Some(self.clone()))
    }

    pub fn resource(&self) -> Resource {
        self.0.resource
    }

    pub fn max(&self) -> u64 {
        self.0.max.load(Ordering::Relaxed)
    }

    /// Sets the bound. Charges above a lower one stay, and new ones are refused.
    pub fn set_max(&self, max: u64) {
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// Bytes of all charges.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    /// Bytes of the charges of one kind.
    pub fn used_by(&self, kind: BudgetKind) -> u64 {
        self.0.used_by[kind as usize].load(Ordering::Acquire)
    }

    /// Bytes that charges of one kind may have.
    pub fn max_of(&self, kind: BudgetKind) -> u64 {
        match self.0.parent {
            Some(_) => self.max() / kind.share(),
            None => self.max(),
        }
    }

    /// True if somebody else has this budget, or a charge of it.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Tells whether a charge of so many bytes would find room now. Changes nothing.
    ///
    /// # Errors
    /// It would not.
    pub fn check(&self, kind: BudgetKind, bytes: u64) -> Result<(), OverBudget> {
        let fits = |used: u64, max: u64| used.checked_add(bytes).is_some_and(|sum| sum <= max);
        let (kind_used, kind_max) = (self.used_by(kind), self.max_of(kind));
        if !fits(kind_used, kind_max) {
            return Err(self.over(self.kind_bound(kind), kind, kind_max, kind_used, bytes));
        }
        let used = self.used();
        if !fits(used, self.max()) {
            return Err(self.over(self.own_bound(), kind, self.max(), used, bytes));
        }
        let Some(parent) = &self.0.parent else { return Ok(()) };
        if let Some(even) = parent.exceeded_part(used + bytes, bytes) {
            return Err(self.over(self.even_bound(), kind, even, used, bytes));
        }
        parent.check(kind, bytes)
    }

    /// True if a charge of so many bytes would find room now.
    pub fn has_room(&self, kind: BudgetKind, bytes: u64) -> bool {
        self.check(kind, bytes).is_ok()
    }

    /// An empty charge, which may grow.
    pub fn empty(&self, kind: BudgetKind) -> Charge {
        Charge { budget: self.clone(), kind, bytes: 0 }
    }

    /// Charges bytes that are asked for.
    ///
    /// # Errors
    /// There is no room; nothing is charged.
    pub fn try_charge(&self, kind: BudgetKind, bytes: u64) -> Result<Charge, OverBudget> {
        let mut charge = self.empty(kind);
        charge.try_grow(bytes)?;
        Ok(charge)
    }

    /// Charges bytes that are there already, whatever the bound is.
    pub fn charge(&self, kind: BudgetKind, bytes: u64) -> Charge {
        let mut charge = self.empty(kind);
        charge.grow(bytes);
        charge
    }

    /// Adds to the charges, up to the bounds.
    fn try_add(&self, kind: BudgetKind, bytes: u64) -> Result<(), OverBudget> {
        if bytes == 0 {
            return Ok(());
        }
        let over = |bound: BudgetBound, max: u64, used: u64| self.over(bound, kind, max, used, bytes);
        let kind_max = self.max_of(kind);
        add_up_to(&self.0.used_by[kind as usize], bytes, kind_max)
            .map_err(|used| over(self.kind_bound(kind), kind_max, used))?;
        let max = self.max();
        let before = add_up_to(&self.0.used, bytes, max).map_err(|used| {
            self.0.used_by[kind as usize].fetch_sub(bytes, Ordering::AcqRel);
            over(self.own_bound(), max, used)
        })?;
        let Some(parent) = &self.0.parent else { return Ok(()) };
        self.0.count_holder(before, before + bytes);
        let added = match parent.exceeded_part(before + bytes, bytes) {
            Some(even) => Err(over(self.even_bound(), even, before)),
            None => parent.try_add(kind, bytes),
        };
        added.inspect_err(|_| self.0.subtract(kind, bytes))
    }

    fn over(&self, bound: BudgetBound, kind: BudgetKind, max: u64, used: u64, asked: u64) -> OverBudget {
        OverBudget { bound, resource: self.0.resource, kind, max, used, asked }
    }

    fn tenant(&self) -> TenantId {
        self.0.tenant.clone().unwrap_or_else(|| TenantId::new(""))
    }

    fn kind_bound(&self, kind: BudgetKind) -> BudgetBound {
        match (&self.0.tenant, kind.share()) {
            (Some(tenant), 2..) => BudgetBound::Kind(tenant.clone()),
            _ => self.own_bound(),
        }
    }

    fn even_bound(&self) -> BudgetBound {
        BudgetBound::EvenPart(self.tenant())
    }

    fn own_bound(&self) -> BudgetBound {
        self.0.tenant.clone().map_or(BudgetBound::Gateway, BudgetBound::Tenant)
    }

    /// The part of the budget within which no tenant is held to an even part.
    fn wide(&self) -> u64 {
        self.max() / 4 * 3
    }

    /// The even part of each holder, if the budget is nearly full and one that comes to `own` bytes by `more`
    /// is above it.
    fn exceeded_part(&self, own: u64, more: u64) -> Option<u64> {
        let wide = self.wide();
        let even = wide / self.0.holders.load(Ordering::Acquire).max(1);
        (own > even && self.used().saturating_add(more) > wide).then_some(even)
    }

    fn add(&self, kind: BudgetKind, bytes: u64) {
        self.0.used_by[kind as usize].fetch_add(bytes, Ordering::AcqRel);
        let before = self.0.used.fetch_add(bytes, Ordering::AcqRel);
        if let Some(parent) = &self.0.parent {
            self.0.count_holder(before, before + bytes);
            parent.add(kind, bytes);
        }
    }

    fn release(&self, kind: BudgetKind, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.0.subtract(kind, bytes);
        if let Some(parent) = &self.0.parent {
            parent.release(kind, bytes);
        }
    }
}

impl Inner {
    /// Takes bytes off this budget alone.
    fn subtract(&self, kind: BudgetKind, bytes: u64) {
        self.used_by[kind as usize].fetch_sub(bytes, Ordering::AcqRel);
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.count_holder(before, before - bytes);
    }

    /// Counts a tenant that begins to hold something, or ends.
    fn count_holder(&self, before: u64, after: u64) {
        let Some(parent) = &self.parent else { return };
        match (before, after) {
            (0, 1..) => _ = parent.0.holders.fetch_add(1, Ordering::AcqRel),
            (1.., 0) => _ = parent.0.holders.fetch_sub(1, Ordering::AcqRel),
            _ => {}
        }
    }
}

/// Adds if the sum is at most `max`, and gives the value before; `Err` gives the present one.
fn add_up_to(value: &AtomicU64, bytes: u64, max: u64) -> Result<u64, u64> {
    let sum = |before: u64| before.checked_add(bytes).filter(|sum| *sum <= max);
    value.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum)
}

/// Bytes of a budget in use. They are free again when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Charge {
    budget: Budget,
    kind: BudgetKind,
    bytes: u64,
}

impl Charge {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn kind(&self) -> BudgetKind {
        self.kind
    }

    /// The budget that is charged.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Charges more.
    ///
    /// # Errors
    /// There is no room; the charge stays as it is.
    pub fn try_grow(&mut self, bytes: u64) -> Result<(), OverBudget> {
        self.budget.try_add(self.kind, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Charges more, whatever the bound is.
    pub fn grow(&mut self, bytes: u64) {
        if bytes > 0 {
            self.budget.add(self.kind, bytes);
            self.bytes += bytes;
        }
    }

    /// Frees bytes, at most as many as it has.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.budget.release(self.kind, bytes);
        self.bytes -= bytes;
    }

    /// Sets the bytes to what is there, whatever the bound is.
    pub fn resize(&mut self, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => self.shrink(self.bytes - bytes),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.kind, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::budget_kind::BudgetKind::{Instances, Pending, State};
    use crate::tenant::budget_kind::Resource;
    use crate::tenant::over_budget::BudgetBound;
    use proptest::prelude::*;

    fn gateway(max: u64) -> Budget {
        Budget::gateway(Resource::Memory, max)
    }

    #[test]
    fn a_charge_takes_room_in_both_budgets_and_gives_it_back() {
        let all = gateway(1_000);
        let acme = all.of_tenant("acme".into(), 100);
        let mut charge = acme.try_charge(Instances, 60).unwrap();
        charge.try_grow(40).unwrap();
        assert_eq!(
            (acme.used(), acme.used_by(Instances), all.used(), all.used_by(Instances)),
            (100, 100, 100, 100)
        );
        charge.shrink(70);
        charge.resize(50);
        assert_eq!((charge.bytes(), acme.used(), all.used()), (50, 50, 50));
        drop(charge);
        assert_eq!((acme.used(), acme.used_by(Instances), all.used()), (0, 0, 0));
    }

    #[test]
    fn a_refusal_names_the_budget_its_size_and_its_key_and_charges_nothing() {
        let all = gateway(1_000);
        let acme = all.of_tenant("acme".into(), 100);
        let _charge = acme.try_charge(State, 90).unwrap();
        let over = acme.try_charge(Instances, 20).unwrap_err();
        assert_eq!(over.bound, BudgetBound::Tenant("acme".into()));
        let text = over.to_string();
        for word in [
            "20 bytes of instances",
            "the tenant's memory budget",
            "100 bytes",
            "90 of them",
            "budget.tenant_memory_bytes_max",
        ] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!((acme.used(), all.used()), (90, 90));
        let over = acme.try_charge(Pending, 26).unwrap_err();
        assert_eq!((over.bound, over.max), (BudgetBound::Kind("acme".into()), 25));
    }

    #[test]
    fn the_last_quarter_of_the_gateways_budget_is_for_tenants_that_hold_little() {
        let all = gateway(1_000);
        let (greedy, modest) = (all.of_tenant("greedy".into(), 1_000), all.of_tenant("modest".into(), 1_000));
        let _held = greedy.try_charge(State, 740).unwrap();
        let _first = modest.try_charge(State, 10).unwrap();
        let over = greedy.try_charge(State, 1).unwrap_err();
        assert_eq!(over.bound, BudgetBound::EvenPart("greedy".into()));
        assert!(over.to_string().contains("budget.memory_bytes_max"), "{over}");
        let _second = modest.try_charge(State, 240).unwrap();
        let over = modest.try_charge(State, 11).unwrap_err();
        assert_eq!(over.bound, BudgetBound::Gateway);
        assert_eq!(all.used(), 990);
    }

    #[test]
    fn bytes_that_are_there_are_charged_beyond_the_bound_and_hold_off_new_ones() {
        let all = gateway(100);
        let acme = all.of_tenant("acme".into(), 10);
        let there = acme.charge(State, 50);
        assert_eq!((acme.used(), all.used()), (50, 50));
        assert!(acme.try_charge(State, 1).is_err() && !acme.has_room(State, 1));
        acme.set_max(100);
        assert!(acme.has_room(State, 1));
        let _more = acme.try_charge(State, 1).unwrap();
        drop(there);
        assert_eq!(all.used(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Charge(usize, BudgetKind, u64),
        Grow(usize, u64),
        Shrink(usize, u64),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let kind = prop::sample::select(Resource::Memory.kinds());
        prop_oneof![
            (0..3usize, kind, 0..400u64).prop_map(|(tenant, kind, bytes)| Step::Charge(tenant, kind, bytes)),
            (any::<usize>(), 0..200u64).prop_map(|(charge, bytes)| Step::Grow(charge, bytes)),
            (any::<usize>(), 0..200u64).prop_map(|(charge, bytes)| Step::Shrink(charge, bytes)),
            any::<usize>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn the_sum_of_charges_is_what_is_used_and_never_above_the_bound(
            steps in prop::collection::vec(step(), 1..200)
        ) {
            let all = gateway(2_000);
            let tenants: Vec<Budget> =
                ["a", "b", "c"].into_iter().map(|name| all.of_tenant(name.into(), 1_000)).collect();
            let mut charges: Vec<(usize, Charge)> = Vec::new();
            for step in steps {
                let count = charges.len();
                match step {
                    Step::Charge(tenant, kind, bytes) => {
                        let told = tenants[tenant].check(kind, bytes).map_err(|over| over.to_string());
                        let made = tenants[tenant].try_charge(kind, bytes);
                        prop_assert!(bytes == 0 || told.is_ok() == made.is_ok(), "{told:?} {made:?}");
                        drop(made);
                        charges.extend(tenants[tenant].try_charge(kind, bytes).ok().map(|charge| (tenant, charge)));
                    }
                    Step::Grow(at, bytes) if count > 0 => _ = charges[at % count].1.try_grow(bytes),
                    Step::Shrink(at, bytes) if count > 0 => charges[at % count].1.shrink(bytes),
                    Step::Drop(at) if count > 0 => _ = charges.swap_remove(at % count),
                    _ => {}
                }
                let mut sum = 0;
                for (index, tenant) in tenants.iter().enumerate() {
                    let own = charges.iter().filter(|(of, _)| *of == index);
                    let own: u64 = own.map(|(_, charge)| charge.bytes()).sum();
                    let kinds: u64 = Resource::Memory.kinds().iter().map(|kind| tenant.used_by(*kind)).sum();
                    prop_assert_eq!((tenant.used(), kinds), (own, own));
                    prop_assert!(own <= 1_000 && tenant.used_by(Pending) <= 250);
                    sum += own;
                }
                prop_assert_eq!(all.used(), sum);
                prop_assert!(sum <= 2_000);
                let holders = tenants.iter().filter(|tenant| tenant.used() > 0).count() as u64;
                prop_assert_eq!(all.0.holders.load(Ordering::Relaxed), holders);
            }
            charges.clear();
            prop_assert_eq!((all.used(), all.0.holders.load(Ordering::Relaxed)), (0, 0));
        }
    }

    #[test]
    fn threads_that_charge_at_once_never_pass_the_bound_and_leave_nothing() {
        let all = gateway(10_000);
        let tenants: Vec<Budget> =
            (0..4).map(|n| all.of_tenant(n.to_string().as_str().into(), 4_000)).collect();
        std::thread::scope(|scope| {
            for tenant in &tenants {
                for seed in 0..2u64 {
                    let all = &all;
                    scope.spawn(move || {
                        let mut held = Vec::new();
                        for n in 0..2_000u64 {
                            held.extend(tenant.try_charge(State, (n * 37 + seed * 11) % 300).ok());
                            assert!(all.used() <= 10_000 && tenant.used() <= 4_000);
                            if held.len() > 8 {
                                drop(held.swap_remove((n % 8) as usize));
                            }
                        }
                    });
                }
            }
        });
        assert_eq!((all.used(), all.0.holders.load(Ordering::Relaxed)), (0, 0));
    }
}

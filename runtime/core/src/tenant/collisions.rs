//! The check that tenants with lines in one database can be told apart.
//!
//! Two tenants of one database are told apart by one tag, the same for both, that carries the tenant:
//! neither can write it, for it is the host's. Or by prefixes of their tables of which neither begins
//! with the other: with `a` and `ab`, the table `abc` could be either's. A tag that only one of them
//! has tells nothing, for the other's decoder may write that tag itself.
//!
//! An unnamed tenant has the default policy. A database that such a tenant would have counts as taken
//! even before the tenant exists: it may come tomorrow.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use crate::tenant::database::TENANT;
use crate::tenant::policy::TenantPolicy;

/// Two tenants that cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    pub one: String,
    pub other: String,
    pub database: String,
    /// The other is not named: it has the terms of all others.
    pub other_is_unnamed: bool,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { one, other, database, other_is_unnamed } = self;
        write!(f, "the tenants {one:?} and {other:?} would both write to the database {database:?}")?;
        if *other_is_unnamed {
            write!(f, " ({other:?} by the settings of all tenants without own settings)")?;
        }
        f.write_str(
            ", and nothing would separate their lines: give both the same tenant_tag, or two table_prefixes of which \
             neither begins with the other, or different databases",
        )
    }
}

/// The fault of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementError {
    Collision(Box<Collision>),
    /// The value of a key by itself.
    Value {
        key: &'static str,
        value: String,
        why: String,
    },
}

/// The place of one tenant's lines, and their mark there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placement {
    server: String,
    database: String,
    prefix: String,
    tag: String,
}

impl Placement {
    fn is_distinct_from(&self, other: &Self) -> bool {
        (self.tag == other.tag && !self.tag.is_empty())
            || !(self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix))
    }
}

/// The named tenants, by the place of their lines.
#[derive(Clone, Debug)]
pub struct Placements {
    others: TenantPolicy,
    /// Server and database, and the tenants there.
    databases: HashMap<(String, String), BTreeMap<String, Placement>>,
    /// `None`: still to be placed.
    named: HashMap<String, Option<(String, String)>>,
}

impl Placements {
    /// # Errors
    /// The default policy does not tell its tenants apart.
    pub fn new(others: TenantPolicy) -> Result<Self, PlacementError> {
        let value = |key, value: &str, why: &str| {
            Err(PlacementError::Value { key, value: value.to_owned(), why: why.to_owned() })
        };
        let prefix = &others.table_prefix;
        if let Some((_, end)) = prefix.split_once(TENANT) {
            if end.is_empty() && others.database.is_shared() && others.tenant_tag.is_empty() {
                return value("table_prefix", prefix, "expected text after {tenant}, such as {tenant}_");
            }
            if end.contains(TENANT) {
                return value("table_prefix", prefix, "expected {tenant} only once");
            }
        }
        if let Err(why) = others.prefix_of("t", false) {
            return value("table_prefix", prefix, &why);
        }
        let told_apart =
            !others.database.is_shared() || !others.tenant_tag.is_empty() || prefix.contains(TENANT);
        if !told_apart {
            return value(
                "database",
                others.database.as_str(),
                "expected a name that contains {tenant}, or a tenant_tag, or a table_prefix that contains {tenant}: \
                 nothing else separates the lines of two tenants",
            );
        }
        if let Err(why) = others.database.name_of("t") {
            return value("database", others.database.as_str(), &why);
        }
        Ok(Self { others, databases: HashMap::new(), named: HashMap::new() })
    }

    /// Names tenants that will be placed by their own policies, so that none counts with the default one.
    pub fn reserve<'a>(&mut self, tenants: impl IntoIterator<Item = &'a String>) {
        for tenant in tenants {
            self.named.entry(tenant.clone()).or_default();
        }
    }

    /// Places a tenant by its own policy, in place of its earlier one. After an error nothing has changed.
    ///
    /// # Errors
    /// The fault of its policy, or the tenant that it could not be told apart from.
    pub fn place(&mut self, tenant: &str, terms: &TenantPolicy) -> Result<(), PlacementError> {
        let place = self.place_of(tenant, terms, false)?;
        self.collides(tenant, &place)?;
        self.unplace(tenant);
        let at = (place.server.clone(), place.database.clone());
        self.named.insert(tenant.to_owned(), Some(at.clone()));
        self.databases.entry(at).or_default().insert(tenant.to_owned(), place);
        Ok(())
    }

    /// Removes a tenant from the named ones: the default policy places it.
    ///
    /// # Errors
    /// The tenant that it could not be told apart from; it then stays in its place.
    pub fn remove(&mut self, tenant: &str) -> Result<(), PlacementError> {
        // The default policy may give a database that cannot be written; then nothing collides.
        if let Ok(place) = self.place_of(tenant, &self.others, true) {
            let at = (place.server.clone(), place.database.clone());
            for (other, theirs) in self.databases.get(&at).into_iter().flatten() {
                if other != tenant && !place.is_distinct_from(theirs) {
                    return Err(collision(other, tenant, &place.database, true));
                }
            }
        }
        self.unplace(tenant);
        Ok(())
    }

    fn unplace(&mut self, tenant: &str) {
        if let Some(Some(at)) = self.named.remove(tenant)
            && let Some(there) = self.databases.get_mut(&at)
        {
            there.remove(tenant);
            if there.is_empty() {
                self.databases.remove(&at);
            }
        }
    }

    fn place_of(
        &self,
        tenant: &str,
        terms: &TenantPolicy,
        of_others: bool,
    ) -> Result<Placement, PlacementError> {
        let value = |key, value: &str, why| PlacementError::Value { key, value: value.to_owned(), why };
        let database =
            terms.database.name_of(tenant).map_err(|why| value("database", terms.database.as_str(), why))?;
        let prefix = terms
            .prefix_of(tenant, of_others)
            .map_err(|why| value("table_prefix", &terms.table_prefix, why))?;
        Ok(Placement {
            server: terms.server.trim_end_matches('/').to_owned(),
            database: database.to_string(),
            prefix,
            tag: terms.tenant_tag.clone(),
        })
    }

    fn collides(&self, tenant: &str, place: &Placement) -> Result<(), PlacementError> {
        let at = (place.server.clone(), place.database.clone());
        for (other, theirs) in self.databases.get(&at).into_iter().flatten() {
            if other != tenant && !place.is_distinct_from(theirs) {
                let other = other.as_str();
                let (one, other) = if other < tenant { (other, tenant) } else { (tenant, other) };
                return Err(collision(one, other, &place.database, false));
            }
        }
        match self.unnamed_at(tenant, place) {
            Some(other) => Err(collision(tenant, &other, &place.database, true)),
            None => Ok(()),
        }
    }

    /// An unnamed tenant that would have this place and could not be told apart.
    fn unnamed_at(&self, tenant: &str, place: &Placement) -> Option<String> {
        let others = &self.others;
        if others.server.trim_end_matches('/') != place.server {
            return None;
        }
        let is_unnamed = |name: &str| name != tenant && !self.named.contains_key(name);
        if !others.database.is_shared() {
            let name = others.database.tenant_of(&place.database).filter(|name| is_unnamed(name))?;
            let theirs = self.place_of(&name, others, true).ok()?;
            return (!place.is_distinct_from(&theirs)).then_some(name);
        }
        let shared = others.database.name_of("").ok().is_some_and(|name| name.as_str() == place.database);
        if !shared || (!place.tag.is_empty() && place.tag == others.tenant_tag) {
            return None;
        }
        // Their prefix, where it begins as this one does or this one as theirs.
        let candidates: HashSet<String> = match others.table_prefix.split_once(TENANT) {
            // The same for all.
            None => HashSet::from(["any other".to_owned()]),
            Some((begin, end)) => match place.prefix.strip_prefix(begin) {
                // What stands before the name begins with all of this prefix, or they differ there.
                None if begin.starts_with(&place.prefix) => HashSet::from(["any other".to_owned()]),
                None => HashSet::new(),
                Some(rest) => match rest.find(end).filter(|_| !end.is_empty()) {
                    // The name is whole.
                    Some(at) => HashSet::from([rest[..at].to_owned()]),
                    // A name that begins so.
                    None => HashSet::from([rest.to_owned(), format!("{rest}1")]),
                },
            },
        };
        let mut candidates: Vec<String> = candidates.into_iter().filter(|name| is_unnamed(name)).collect();
        candidates.sort();
        candidates.into_iter().find(|name| match self.place_of(name, others, true) {
            Ok(theirs) => !place.is_distinct_from(&theirs),
            // No such name can be written there. "any other" stands for all.
            Err(_) => name == "any other",
        })
    }
}

fn collision(one: &str, other: &str, database: &str, other_is_unnamed: bool) -> PlacementError {
    PlacementError::Collision(Box::new(Collision {
        one: one.to_owned(),
        other: other.to_owned(),
        database: database.to_owned(),
        other_is_unnamed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::database::{DatabaseTemplate, NameRule};
    use crate::tenant::policy::TenantPolicy;

    fn terms(database: &str, table_prefix: &str, tenant_tag: &str) -> TenantPolicy {
        let plain = TenantPolicy::plain(DatabaseTemplate::new(database, NameRule::InfluxDb3));
        TenantPolicy { table_prefix: table_prefix.into(), tenant_tag: tenant_tag.into(), ..plain }
    }

    /// Places tenants one after the other; gives the first collision.
    fn placed(others: &TenantPolicy, tenants: &[(&str, TenantPolicy)]) -> Option<(String, String, String)> {
        let mut ground = Placements::new(others.clone()).unwrap();
        for (tenant, terms) in tenants {
            match ground.place(tenant, terms) {
                Ok(()) => {}
                Err(PlacementError::Collision(collision)) => {
                    return Some((collision.one, collision.other, collision.database));
                }
                Err(fault) => panic!("{fault:?}"),
            }
        }
        None
    }

    fn names(one: &str, other: &str, database: &str) -> Option<(String, String, String)> {
        Some((one.into(), other.into(), database.into()))
    }

    #[test]
    fn one_database_is_for_tenants_that_a_tag_or_prefixes_tell_apart() {
        let others = terms("telemetry_{tenant}", "", "");
        let pair = |a: TenantPolicy, b: TenantPolicy| placed(&others, &[("a", a), ("b", b)]);
        assert_eq!(pair(terms("x", "", ""), terms("x", "", "")), names("a", "b", "x"));
        assert_eq!(pair(terms("x", "", "tenant"), terms("x", "", "tenant")), None);
        assert_eq!(pair(terms("x", "", "tenant"), terms("x", "", "")), names("a", "b", "x"));
        assert_eq!(pair(terms("x", "", "tenant"), terms("x", "", "customer")), names("a", "b", "x"));
        assert_eq!(pair(terms("x", "a_", ""), terms("x", "b_", "")), None);
        assert_eq!(pair(terms("x", "a", ""), terms("x", "ab", "")), names("a", "b", "x"));
        assert_eq!(pair(terms("x", "ab", ""), terms("x", "a", "")), names("a", "b", "x"));
        assert_eq!(pair(terms("x", "a", ""), terms("x", "", "")), names("a", "b", "x"));
        assert_eq!(pair(terms("x", "", ""), terms("y", "", "")), None);
        let elsewhere = TenantPolicy { server: "http://other".into(), ..terms("x", "", "") };
        assert_eq!(pair(terms("x", "", ""), elsewhere.clone()), None);
        let same_place = TenantPolicy { server: "http://other/".into(), ..elsewhere.clone() };
        assert_eq!(pair(elsewhere, same_place), names("a", "b", "x"));
    }

    #[test]
    fn the_database_of_a_tenant_that_nobody_has_named_is_taken() {
        let others = terms("telemetry_{tenant}", "", "");
        assert_eq!(placed(&others, &[("a", terms("telemetry_b", "", ""))]), names("a", "b", "telemetry_b"));
        assert_eq!(placed(&others, &[("a", terms("telemetry_a", "", ""))]), None);
        let mut ground = Placements::new(others.clone()).unwrap();
        ground.reserve([&"a".to_owned(), &"b".to_owned()]);
        ground.place("a", &terms("telemetry_b", "", "")).unwrap();
        assert!(ground.place("b", &others).is_err());
        ground.place("b", &terms("elsewhere", "", "")).unwrap();
        let b = ("b", terms("elsewhere", "", ""));
        assert_eq!(placed(&others, &[b, ("a", terms("telemetry_b", "", ""))]), None);
        let tagged = terms("telemetry_{tenant}", "", "tenant");
        assert_eq!(placed(&tagged, &[("a", terms("telemetry_b", "", "tenant"))]), None);
    }

    #[test]
    fn beside_others_that_share_a_database_one_must_be_told_apart_from_all_of_them() {
        let by_tag = terms("all", "", "tenant");
        assert_eq!(placed(&by_tag, &[("a", terms("all", "", "tenant"))]), None);
        assert!(placed(&by_tag, &[("a", terms("all", "", ""))]).is_some());
        assert!(placed(&by_tag, &[("a", terms("all", "a_", ""))]).is_some(), "theirs begin with nothing");
        assert_eq!(placed(&by_tag, &[("a", terms("own", "", ""))]), None);

        let by_prefix = terms("all", "{tenant}_", "");
        assert_eq!(placed(&by_prefix, &[("a", terms("all", "a_", ""))]), None);
        assert_eq!(placed(&by_prefix, &[("a", terms("all", "b_", ""))]), names("a", "b", "all"));
        assert_eq!(placed(&by_prefix, &[("a", terms("all", "b_c_", ""))]), names("a", "b", "all"));
        assert_eq!(placed(&by_prefix, &[("a", terms("all", "a", ""))]), names("a", "a1", "all"));
        assert!(placed(&by_prefix, &[("a", terms("all", "", ""))]).is_some());
        let marked = terms("all", "t.{tenant}_", "");
        assert_eq!(placed(&marked, &[("a", terms("all", "own_", ""))]), None);
        assert!(placed(&marked, &[("a", terms("all", "t", ""))]).is_some());
    }

    #[test]
    fn terms_for_all_others_must_tell_those_apart() {
        for (database, prefix, tag) in [("x", "", ""), ("x", "fixed_", ""), ("x", "{tenant}", "")] {
            assert!(Placements::new(terms(database, prefix, tag)).is_err(), "{database} {prefix}");
        }
        for (database, prefix, tag) in
            [("x_{tenant}", "", ""), ("x", "{tenant}_", ""), ("x", "", "t"), ("x_{tenant}", "{tenant}", "")]
        {
            assert!(Placements::new(terms(database, prefix, tag)).is_ok(), "{database} {prefix}");
        }
    }

    #[test]
    fn who_is_not_named_any_more_must_be_told_apart_too() {
        let mut ground = Placements::new(terms("telemetry_{tenant}", "", "")).unwrap();
        ground.place("b", &terms("elsewhere", "", "")).unwrap();
        ground.place("a", &terms("telemetry_b", "", "")).unwrap();
        assert!(ground.remove("b").is_err());
        assert!(ground.place("c", &terms("elsewhere", "", "")).is_err(), "b is still there");
        ground.place("a", &terms("telemetry_a", "", "")).unwrap();
        ground.remove("b").unwrap();
        ground.place("c", &terms("elsewhere", "", "")).unwrap();
    }
}

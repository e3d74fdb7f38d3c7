//! Policies of tenants: the database of their lines, the parts added to the lines, and the limits on them.
//!
//! A policy is the operator's word, for one tenant by name or for all others; `{tenant}` stands in it for
//! the name. Settings are the policy applied to one tenant. That no two tenants end in one
//! database without a difference is checked by `collisions`.

use std::collections::{BTreeMap, HashMap};

use crate::ids::TenantId;
use crate::limits::{NAME_BYTES_MAX, TABLE_PREFIX_BYTES_MAX, TENANT_TAG_BYTES_MAX};
use crate::line_protocol::identity::escape_tag_value;
use crate::line_protocol::rules::{LineRules, NameSet, TenantTag};
use crate::tenant::budgets::BudgetShare;
use crate::tenant::database::{DatabaseTemplate, TENANT};
use crate::tenant::rates::DeviceRate;
use crate::tenant::settings::{OutputId, SpoolShare, TenantSettings};
use crate::token_bucket::Rate;

/// The operator's policy for one tenant, or for all unnamed ones.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantPolicy {
    pub database: DatabaseTemplate,
    /// Empty: none.
    pub table_prefix: String,
    /// Empty: none.
    pub tenant_tag: String,
    /// Empty: any.
    pub tables: Vec<String>,
    /// Empty: any.
    pub fields: Vec<String>,
    pub fields_of: BTreeMap<String, Vec<String>>,
    /// 0: any.
    pub time_past_max_s: u64,
    /// 0: any.
    pub time_future_max_s: u64,
    /// The server that they go to.
    pub server: String,
    pub device_rate: DeviceRate,
    /// The rate of all its devices together.
    pub tenant_rate: Option<Rate>,
    pub spool: SpoolShare,
    pub budget: BudgetShare,
    /// The part of the decode threads' CPU time, above 0 to 1; `None`: an even one.
    pub cpu_share: Option<f64>,
    /// `None`: the common output.
    pub output: Option<OutputId>,
}

/// The terms of all tenants.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantPolicies {
    others: TenantPolicy,
    named: HashMap<String, TenantPolicy, foldhash::fast::RandomState>,
}

impl TenantPolicies {
    /// Terms of all that are not named.
    pub fn new(others: TenantPolicy) -> Self {
        Self { others, named: HashMap::default() }
    }

    pub fn name(&mut self, tenant: &str, terms: TenantPolicy) {
        self.named.insert(tenant.to_owned(), terms);
    }

    /// Every tenant with terms of its own.
    pub fn named(&self) -> impl Iterator<Item = (&str, &TenantPolicy)> {
        self.named.iter().map(|(name, terms)| (name.as_str(), terms))
    }

    /// Gives named tenants their outputs; the others have the common one.
    pub fn with_outputs(mut self, outputs: &HashMap<TenantId, OutputId>) -> Self {
        for (tenant, output) in outputs {
            if let Some(terms) = self.named.get_mut(tenant.as_str()) {
                terms.output = Some(*output);
            }
        }
        self
    }

    pub fn terms_of(&self, tenant: &str) -> &TenantPolicy {
        self.named.get(tenant).unwrap_or(&self.others)
    }

    pub fn rules_of(&self, tenant: &str) -> TenantSettings {
        match self.named.get(tenant) {
            Some(terms) => terms.rules(tenant, false),
            None => self.others.rules(tenant, true),
        }
    }
}

impl TenantPolicy {
    /// Nothing but a database.
    pub fn plain(database: DatabaseTemplate) -> Self {
        Self {
            database,
            table_prefix: String::new(),
            tenant_tag: String::new(),
            tables: Vec::new(),
            fields: Vec::new(),
            fields_of: BTreeMap::new(),
            time_past_max_s: 0,
            time_future_max_s: 0,
            server: String::new(),
            device_rate: DeviceRate::default(),
            tenant_rate: None,
            spool: SpoolShare::default(),
            budget: BudgetShare::default(),
            cpu_share: None,
            output: None,
        }
    }

    /// `of_others`: the policy of unnamed tenants.
    fn rules(&self, tenant: &str, of_others: bool) -> TenantSettings {
        let database = self.database.name_of(tenant);
        let (database, lines) = match self.line_rules(tenant, of_others) {
            Ok(lines) => (database, (!lines.is_empty()).then_some(lines)),
            Err(fault) => (database.and(Err(fault)), None),
        };
        TenantSettings {
            database,
            lines,
            device_rate: self.device_rate,
            tenant_rate: self.tenant_rate,
            spool: self.spool,
            cpu_share: self.cpu_share,
            output: self.output,
        }
    }

    fn line_rules(&self, tenant: &str, of_others: bool) -> Result<LineRules, String> {
        let set = |names: &[String]| (!names.is_empty()).then(|| NameSet::new(names));
        let ns = |seconds: u64| (seconds > 0).then(|| (seconds as i64).saturating_mul(1_000_000_000));
        Ok(LineRules {
            table_prefix: self.prefix_of(tenant, of_others)?.into_bytes().into(),
            tenant_tag: match &*self.tenant_tag {
                "" => None,
                key => Some(tenant_tag(key, tenant)?),
            },
            tables: set(&self.tables),
            fields: set(&self.fields),
            fields_of: self
                .fields_of
                .iter()
                .map(|(table, fields)| (table.as_bytes().into(), NameSet::new(fields)))
                .collect(),
            past_max_ns: ns(self.time_past_max_s),
            future_max_ns: ns(self.time_future_max_s),
        })
    }

    /// The prefix of a tenant's tables.
    ///
    /// # Errors
    /// No table can begin so, or it would not be known where the tenant's name ends in it.
    pub fn prefix_of(&self, tenant: &str, of_others: bool) -> Result<String, String> {
        let template = &self.table_prefix;
        if template.is_empty() {
            return Ok(String::new());
        }
        // If only the prefix tells unnamed tenants apart, it must name its tenant by itself: the text
        // that ends the name may not occur in the name.
        if of_others
            && self.database.is_shared()
            && self.tenant_tag.is_empty()
            && let Some((_, end)) = template.split_once(TENANT)
            && format!("{tenant}{end}").find(end) != Some(tenant.len())
        {
            return Err(format!(
                "the tenant's name {tenant:?} contains {end:?}, which ends the name in the table prefix {template:?}: \
                 its tables could be those of another tenant, so this tenant needs its own settings"
            ));
        }
        let prefix = template.replace(TENANT, tenant);
        if is_table_prefix(&prefix) {
            return Ok(prefix);
        }
        Err(format!("invalid table prefix {prefix:?}: expected {}", expected_table_prefix()))
    }
}

/// True if table names may begin so in every database, without any escape.
fn is_table_prefix(prefix: &str) -> bool {
    prefix.len() <= TABLE_PREFIX_BYTES_MAX
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
        && prefix.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

pub fn expected_table_prefix() -> String {
    format!(
        "ASCII letters, digits, _, -, . and :, a letter or digit first, at most {TABLE_PREFIX_BYTES_MAX} bytes"
    )
}

/// True for a possible key of the tenant tag.
pub fn is_tenant_tag(key: &str) -> bool {
    key.len() <= TENANT_TAG_BYTES_MAX
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && key.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && !["device_id", "site_id", "time"].contains(&key)
}

fn tenant_tag(key: &str, tenant: &str) -> Result<TenantTag, String> {
    if tenant.is_empty() || tenant.contains(char::is_control) || tenant.len() > NAME_BYTES_MAX / 2 {
        return Err(format!(
            "the tenant's name {tenant:?} cannot stand in the tag {key}: expected 1 to {} bytes without control \
             characters",
            NAME_BYTES_MAX / 2
        ));
    }
    let mut spliced = format!(",{key}=").into_bytes();
    escape_tag_value(tenant, &mut spliced);
    Ok(TenantTag { key: key.as_bytes().into(), spliced: spliced.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::database::{DatabaseTemplate, NameRule};
    use crate::tenant::settings::TenantSettings;

    fn terms(database: &str, table_prefix: &str, tenant_tag: &str) -> TenantPolicy {
        let plain = TenantPolicy::plain(DatabaseTemplate::new(database, NameRule::InfluxDb3));
        TenantPolicy { table_prefix: table_prefix.into(), tenant_tag: tenant_tag.into(), ..plain }
    }

    #[test]
    fn who_is_named_has_its_own_terms_and_the_others_theirs() {
        let mut tenancy = TenantPolicies::new(terms("telemetry_{tenant}", "", ""));
        tenancy.name("a b", terms("shared", "", "tenant"));
        assert_eq!(tenancy.rules_of("x"), TenantSettings::plain(Ok("telemetry_x".into())));
        let rules = tenancy.rules_of("a b");
        assert_eq!(rules.database.unwrap().as_str(), "shared");
        assert_eq!(&*rules.lines.unwrap().tenant_tag.unwrap().spliced, br",tenant=a\ b");
    }

    #[test]
    fn a_name_that_would_blur_whose_table_it_is_has_no_database() {
        let tenancy = TenantPolicies::new(terms("shared", "{tenant}_", ""));
        assert!(tenancy.rules_of("acme").database.is_ok());
        for tenant in ["a_b", "_", "a_", "a b", "ä", "", "a\nb"] {
            assert!(tenancy.rules_of(tenant).database.is_err(), "{tenant:?}");
        }
        // With another difference between them, the prefix need not differ.
        assert!(TenantPolicies::new(terms("shared", "{tenant}_", "tenant")).rules_of("a_b").database.is_ok());
        assert!(TenantPolicies::new(terms("db_{tenant}", "{tenant}_", "")).rules_of("a_b").database.is_ok());
        // "ab" ends in the middle of what ends the name.
        assert!(TenantPolicies::new(terms("shared", "{tenant}--", "")).rules_of("a-").database.is_err());
    }

    #[test]
    fn a_name_that_no_tag_can_carry_has_no_database() {
        let tenancy = TenantPolicies::new(terms("shared", "", "tenant"));
        assert!(tenancy.rules_of("a\nb").database.is_err() && tenancy.rules_of("").database.is_err());
        assert!(tenancy.rules_of("ä, b=c\\").database.is_ok());
    }
}

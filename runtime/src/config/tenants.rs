//! `[tenants.NAME]`: what holds for one tenant, of its own settings and those for all; and whether all
//! of it makes sense together.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::config::budget_plan::tenant_bytes;
use crate::config::checks::values::{output_url, within};
use crate::config::error::ConfigError;
use crate::config::redaction::is_secret;
use crate::config::sections::{Config, TenantSection};
use crate::config::words::{OutputKind, Word};
use crate::core::redacted_url::RedactedUrl;
use crate::core::tenant::budgets::BudgetShare;
use crate::core::tenant::collisions::{PlacementError, Placements};
use crate::core::tenant::database::{DatabaseTemplate, NameRule};
use crate::core::tenant::policy::{TenantPolicies, TenantPolicy, is_tenant_tag};
use crate::core::tenant::rates::{DeviceRate, limit};
use crate::core::tenant::settings::SpoolShare;
use crate::spool::limits;

/// Each key of a tenant, and the key of which it is the exception.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("database", "output.database"),
    ("tenant_tag", "output.tenant_tag"),
    ("table_prefix", "output.table_prefix"),
    ("tables", "output.tables"),
    ("fields", "output.fields"),
    ("time_past_max_s", "admission.time_past_max_s"),
    ("time_future_max_s", "admission.time_future_max_s"),
    ("rate_per_s", "admission.rate_per_s"),
    ("burst", "admission.burst"),
    ("tenant_rate_per_s", "admission.tenant_rate_per_s"),
    ("tenant_burst", "admission.tenant_burst"),
    ("spool_bytes_max", "spool.tenant_bytes_max"),
    ("spool_when_full", "spool.when_full"),
    ("memory_bytes_max", "budget.tenant_memory_bytes_max"),
    ("disk_bytes_max", "budget.tenant_disk_bytes_max"),
    ("cpu_share", "guests.cpu_share"),
    ("output_url", "output.url"),
    ("output_token", "output.token"),
    ("output_token_file", "output.token_file"),
    ("output_org", "output.org"),
    ("output_username", "output.username"),
    ("output_password", "output.password"),
    ("output_password_file", "output.password_file"),
];

/// Keys whose common values are not a tenant's that has a server of its own.
pub const CREDENTIALS: &[&str] =
    &["output_token", "output_token_file", "output_username", "output_password", "output_password_file"];

impl TenantSection {
    /// These settings, and those of `over` for what it names.
    pub fn under(&self, over: &TenantSection) -> TenantSection {
        let table = |tenant: &TenantSection| Table::try_from(tenant).expect("settings are a table");
        let mut both = table(self);
        both.extend(table(over));
        Value::Table(both).try_into().expect("it is made of settings")
    }

    /// True if it has an output of its own: another server, or other credentials.
    pub fn has_own_output(&self) -> bool {
        [
            &self.output_url,
            &self.output_token,
            &self.output_token_file,
            &self.output_org,
            &self.output_username,
            &self.output_password,
            &self.output_password_file,
        ]
        .iter()
        .any(|key| key.is_some())
    }

    /// Settings of which every key has a value, so that their types can be seen.
    pub fn example() -> Table {
        let mut table = Table::new();
        let defaults = Table::try_from(Config::default()).expect("the default configuration is a table");
        for (key, of) in DEFAULTS {
            let (section, name) = of.split_once('.').expect("keys lie in sections");
            table.insert((*key).into(), defaults[section][name].clone());
        }
        table
    }
}

/// The rule for names of databases at the output of this configuration.
pub fn name_rule(config: &Config) -> NameRule {
    match config.output.kind.get() {
        OutputKind::InfluxDb3 => NameRule::InfluxDb3,
        OutputKind::File => NameRule::Folder,
        OutputKind::InfluxDb2 | OutputKind::InfluxDb1 => NameRule::Older,
    }
}

/// The policy of one tenant; `None`: of all that are not named.
pub fn terms(config: &Config, own: Option<&TenantSection>) -> TenantPolicy {
    let none = TenantSection::default();
    let (own, output, admission) = (own.unwrap_or(&none), &config.output, &config.admission);
    let text = |own: &Option<String>, common: &String| own.as_ref().unwrap_or(common).clone();
    let names = |own: &Option<Vec<String>>, common: &Vec<String>| match own {
        Some(names) if names.iter().any(|name| name == "*") => Vec::new(),
        names => names.as_ref().unwrap_or(common).clone(),
    };
    TenantPolicy {
        database: DatabaseTemplate::new(&text(&own.database, &output.database), name_rule(config)),
        table_prefix: text(&own.table_prefix, &output.table_prefix),
        tenant_tag: text(&own.tenant_tag, &output.tenant_tag),
        tables: names(&own.tables, &output.tables),
        fields: names(&own.fields, &output.fields),
        fields_of: own.fields_of.clone().unwrap_or_default(),
        time_past_max_s: own.time_past_max_s.unwrap_or(admission.time_past_max_s),
        time_future_max_s: own.time_future_max_s.unwrap_or(admission.time_future_max_s),
        server: text(&own.output_url, &output.url),
        device_rate: DeviceRate { per_s: own.rate_per_s, burst: own.burst, burst_default: admission.burst },
        tenant_rate: limit(
            own.tenant_rate_per_s.unwrap_or(admission.tenant_rate_per_s),
            own.tenant_burst.unwrap_or(admission.tenant_burst),
        ),
        spool: SpoolShare {
            bytes_max: own.spool_bytes_max,
            when_full: own.spool_when_full.as_ref().map(Word::get),
        },
        budget: BudgetShare {
            memory_bytes_max: own.memory_bytes_max.filter(|bytes| *bytes > 0),
            disk_bytes_max: own.disk_bytes_max.filter(|bytes| *bytes > 0),
        },
        cpu_share: Some(own.cpu_share.unwrap_or(config.guests.cpu_share)).filter(|share| *share > 0.0),
        // The writer numbers outputs when it opens them.
        output: None,
    }
}

/// The terms of all tenants.
pub fn tenancy(config: &Config) -> TenantPolicies {
    let mut tenancy = TenantPolicies::new(terms(config, None));
    for (name, own) in &config.tenants {
        tenancy.name(name, terms(config, Some(own)));
    }
    tenancy
}

/// Checks the values of all tenants, and that no two of them end in one place.
///
/// # Errors
/// The first invalid key, or the two tenants.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    let mut placements = others(config)?;
    placements.reserve(config.tenants.keys());
    for (name, own) in &config.tenants {
        check_one(config, name, own)?;
        add_placement(config, &mut placements, name, own)?;
    }
    Ok(())
}

/// The placements that hold for all tenants that are not named.
///
/// # Errors
/// Nothing tells those apart.
pub fn others(config: &Config) -> Result<Placements, ConfigError> {
    Placements::new(terms(config, None)).map_err(|fault| named(fault, |key| format!("output.{key}")))
}

/// Places one tenant.
///
/// # Errors
/// The key with a bad value, or the tenant that it could not be distinguished from.
pub fn add_placement(
    config: &Config,
    placements: &mut Placements,
    name: &str,
    own: &TenantSection,
) -> Result<(), ConfigError> {
    let terms = terms(config, Some(own));
    placements.place(name, &terms).map_err(|fault| match fault {
        PlacementError::Collision(_) => named(fault, |_| format!("tenants.{name}.database")),
        PlacementError::Value { key, .. } => {
            let is_own = match key {
                "database" => own.database.is_some(),
                _ => own.table_prefix.is_some(),
            };
            match is_own {
                true => named(fault, |key| format!("tenants.{name}.{key}")),
                false => named(fault, |key| format!("output.{key}` for the tenant `{name}")),
            }
        }
    })
}

/// The fault with the key that it is of.
pub fn named(fault: PlacementError, key_of: impl Fn(&str) -> String) -> ConfigError {
    match fault {
        PlacementError::Collision(collision) => ConfigError::Value {
            key: key_of("database"),
            value: format!("{:?}", collision.database),
            expected: collision.to_string(),
        },
        PlacementError::Value { key, value, why } => {
            ConfigError::Value { key: key_of(key), value: format!("{value:?}"), expected: why }
        }
    }
}

/// A century: what is further away is no window.
const WINDOW_S_MAX: u64 = 3_155_760_000;

/// Checks what holds for all.
pub(super) fn check_common(config: &Config) -> Result<(), ConfigError> {
    let (output, admission) = (&config.output, &config.admission);
    within("admission.tenant_rate_per_s", admission.tenant_rate_per_s, 0.0, 1e9)?;
    within("admission.tenant_burst", admission.tenant_burst, 1.0, 1e9)?;
    within("admission.time_past_max_s", admission.time_past_max_s, 0, WINDOW_S_MAX)?;
    within("admission.time_future_max_s", admission.time_future_max_s, 0, WINDOW_S_MAX)?;
    within("guests.cpu_share", config.guests.cpu_share, 0.0, 1.0)?;
    tag("output.tenant_tag", &output.tenant_tag)?;
    names("output.tables", &output.tables)?;
    names("output.fields", &output.fields)
}

/// Checks the values of one tenant by themselves.
///
/// # Errors
/// The first invalid key.
pub fn check_one(config: &Config, name: &str, own: &TenantSection) -> Result<(), ConfigError> {
    let at = |key: &str| format!("tenants.{name}.{key}");
    if let Some(database) = &own.database
        && database.is_empty()
    {
        return Err(ConfigError::value(&at("database"), database, "the name of a database"));
    }
    if let Some(key) = &own.tenant_tag {
        tag(&at("tenant_tag"), key)?;
    }
    for (key, list) in [("tables", &own.tables), ("fields", &own.fields)] {
        if let Some(list) = list {
            own_names(&at(key), list)?;
        }
    }
    for (table, fields) in own.fields_of.iter().flatten() {
        own_names(&at(&format!("fields_of.{table}")), fields)?;
    }
    for (key, value) in
        [("time_past_max_s", own.time_past_max_s), ("time_future_max_s", own.time_future_max_s)]
    {
        within(&at(key), value.unwrap_or(0), 0, WINDOW_S_MAX)?;
    }
    for (key, value) in [("rate_per_s", own.rate_per_s), ("tenant_rate_per_s", own.tenant_rate_per_s)] {
        within(&at(key), value.unwrap_or(0.0), 0.0, 1e9)?;
    }
    for (key, value) in [("burst", own.burst), ("tenant_burst", own.tenant_burst)] {
        within(&at(key), value.unwrap_or(1.0), 1.0, 1e9)?;
    }
    if let Some(bytes) = own.spool_bytes_max {
        within(&at("spool_bytes_max"), bytes, limits::SPOOL_TENANT_BYTES_MIN, u64::MAX >> 1)?;
    }
    if let Some(when) = &own.spool_when_full {
        when.check(&at("spool_when_full"))?;
    }
    let all = &config.budget;
    let (memory, disk) = (own.memory_bytes_max.unwrap_or(0), own.disk_bytes_max.unwrap_or(0));
    tenant_bytes(&at("memory_bytes_max"), memory, "budget.memory_bytes_max", all.memory_bytes_max)?;
    tenant_bytes(&at("disk_bytes_max"), disk, "budget.disk_bytes_max", all.disk_bytes_max)?;
    within(&at("cpu_share"), own.cpu_share.unwrap_or(0.0), 0.0, 1.0)?;
    own_output(config, name, own)
}

fn own_output(config: &Config, name: &str, own: &TenantSection) -> Result<(), ConfigError> {
    let at = |key: &str| format!("tenants.{name}.{key}");
    if config.output.kind.is(OutputKind::File) && own.has_own_output() {
        let url = own.output_url.clone().unwrap_or_default();
        return Err(ConfigError::value(
            &at("output_url"),
            RedactedUrl(&url),
            "no value, because output.kind = \"file\" has no address and no credentials",
        ));
    }
    if let Some(url) = &own.output_url {
        output_url(&at("output_url"), url)?;
    }
    for (key, value, file) in [
        ("output_token", &own.output_token, &own.output_token_file),
        ("output_password", &own.output_password, &own.output_password_file),
    ] {
        if value.as_ref().is_some_and(|value| value.chars().any(|c| !(' '..='~').contains(&c))) {
            return Err(ConfigError::value(&at(key), "(hidden)", "printable ASCII characters"));
        }
        if value.is_some() && file.is_some() {
            let expected = format!("no value, because {} is set", at(&format!("{key}_file")));
            return Err(ConfigError::value(&at(key), "(hidden)", expected));
        }
    }
    Ok(())
}

fn tag(at: &str, key: &str) -> Result<(), ConfigError> {
    if key.is_empty() || is_tenant_tag(key) {
        return Ok(());
    }
    Err(ConfigError::value(
        at,
        key,
        "ASCII letters, digits, _ and -, a letter first, at most 64 bytes, and not device_id, site_id or time",
    ))
}

fn names(at: &str, list: &[String]) -> Result<(), ConfigError> {
    match list.iter().any(String::is_empty) {
        true => Err(ConfigError::value(at, list, "names that are not empty")),
        false => Ok(()),
    }
}

fn own_names(at: &str, list: &[String]) -> Result<(), ConfigError> {
    if list.is_empty() {
        return Err(ConfigError::value(at, list, "at least one name, or [\"*\"] for all"));
    }
    names(at, list)
}

/// Reads the settings of one tenant from the registry's table, key by key.
///
/// # Errors
/// The invalid key, its value, and what is allowed.
pub fn of_row(name: &str, settings: &str) -> Result<TenantSection, ConfigError> {
    let at = |key: &str| format!("tenants.{name}{}{key}", if key.is_empty() { "" } else { "." });
    if settings.len() > crate::limits::TENANT_SETTINGS_BYTES_MAX {
        let most = crate::limits::TENANT_SETTINGS_BYTES_MAX;
        return Err(ConfigError::value(&at(""), settings.len(), format!("at most {most} bytes of settings")));
    }
    let all: BTreeMap<String, serde_json::Value> = serde_json::from_str(settings)
        .map_err(|error| ConfigError::value(&at(""), "settings", format!("a JSON object: {error}")))?;
    for (key, value) in &all {
        let shown = if CREDENTIALS.contains(&&**key) || is_secret(key) {
            "(hidden)".to_owned()
        } else {
            value.to_string()
        };
        let bad = |expected: String| ConfigError::Value { key: at(key), value: shown.clone(), expected };
        if key.ends_with("_file") {
            // Whoever can write the table must not choose which file of this machine is read.
            return Err(bad("expected no value: only the configuration file can name files".into()));
        }
        let alone = serde_json::Value::Object([(key.clone(), value.clone())].into_iter().collect());
        serde_json::from_value::<TenantSection>(alone).map_err(|error| bad(error.to_string()))?;
    }
    let all = serde_json::Value::Object(all.into_iter().collect());
    serde_json::from_value(all)
        .map_err(|error| ConfigError::value(&at(""), "settings", format!("valid settings: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checks;
    use crate::config::effective::EffectiveConfig;
    use crate::config::error::ConfigError;
    use crate::config::layers::merge;
    use crate::config::sections::TenantSection;
    use crate::config::source::{Environment, ValueSource};

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<EffectiveConfig, ConfigError> {
        let environment: Environment =
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut effective = merge(Some((std::path::Path::new("test.toml"), text)), &environment)?;
        checks::check(&effective.config, &mut effective.notes)?;
        Ok(effective)
    }

    fn refused(text: &str) -> String {
        load(text, &[]).unwrap_err().to_string()
    }

    #[test]
    fn variables_win_over_the_file_and_name_a_tenant_however_its_name_is_written() {
        let text = "[tenants.Acme]\ndatabase = \"a\"\nburst = 3\n";
        let loaded = load(
            text,
            &[
                ("TIDEGATE_TENANTS__ACME__BURST", "7"),
                ("TIDEGATE_TENANTS__NEW__TABLES", "a, b"),
                ("TIDEGATE_TENANTS__NEW__SPOOL_BYTES_MAX", "16777216"),
                ("TIDEGATE_TENANTS__NEW__FIELDS_OF__A", "x"),
            ],
        )
        .unwrap();
        let tenants = &loaded.config.tenants;
        assert_eq!(tenants["Acme"].burst, Some(7.0));
        assert_eq!(tenants["Acme"].database.as_deref(), Some("a"));
        assert_eq!(tenants["new"].tables, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(tenants["new"].fields_of.as_ref().unwrap()["a"], ["x"]);
        let variable = ValueSource::Variable("TIDEGATE_TENANTS__ACME__BURST".into());
        assert_eq!(loaded.sources.of("tenants.Acme.burst"), variable);
        assert_eq!(loaded.sources.of("tenants.Acme.database"), ValueSource::File);
        for (name, value) in [
            ("TIDEGATE_TENANTS__ACME__BURSTS", "7"),
            ("TIDEGATE_TENANTS__ACME__BURST", "seven"),
            ("TIDEGATE_TENANTS__ACME", "x"),
        ] {
            assert!(load(text, &[(name, value)]).unwrap_err().to_string().contains(name), "{name}");
        }
    }

    #[test]
    fn what_is_not_good_is_named_with_its_value() {
        for (settings, words) in [
            ("databse = \"x\"", "databse"),
            ("database = \"a b\"", "`tenants.acme.database`: \"a b\""),
            ("database = \"\"", "`tenants.acme.database`: \"\""),
            ("table_prefix = \"a b\"", "`tenants.acme.table_prefix`: \"a b\""),
            ("tenant_tag = \"device_id\"", "`tenants.acme.tenant_tag`: \"device_id\""),
            ("tables = []", "tenants.acme.tables"),
            ("fields = [\"\"]", "tenants.acme.fields"),
            ("rate_per_s = -1", "`tenants.acme.rate_per_s`: -1"),
            ("burst = 0", "`tenants.acme.burst`: 0"),
            ("spool_bytes_max = 1", "`tenants.acme.spool_bytes_max`: 1"),
            ("spool_when_full = \"never\"", "`tenants.acme.spool_when_full`: \"never\""),
            ("memory_bytes_max = 5", "`tenants.acme.memory_bytes_max`: 5"),
            ("disk_bytes_max = 5", "`tenants.acme.disk_bytes_max`: 5"),
            ("cpu_share = 1.5", "`tenants.acme.cpu_share`: 1.5"),
            ("output_url = \"ftp://x\"", "`tenants.acme.output_url`: \"ftp://x\""),
            ("output_token = \"a\"\noutput_token_file = \"b\"", "tenants.acme.output_token"),
            ("time_past_max_s = 9999999999", "tenants.acme.time_past_max_s"),
        ] {
            let error = refused(&format!("[tenants.acme]\n{settings}\n"));
            assert!(error.contains(words), "{settings}: {error}");
            assert!(!error.contains(": \"a\" ("), "a token is shown: {error}");
        }
        let error = refused("[output]\nkind = \"file\"\n[tenants.acme]\noutput_url = \"http://x\"\n");
        assert!(error.contains("tenants.acme.output_url"), "{error}");
    }

    #[test]
    fn two_tenants_that_nothing_tells_apart_are_refused_by_their_names_and_the_database() {
        let error = refused("[tenants.a]\ndatabase = \"shared\"\n[tenants.b]\ndatabase = \"shared\"\n");
        for word in ["\"a\"", "\"b\"", "\"shared\""] {
            assert!(error.contains(word), "{error}");
        }
        load("[tenants.a]\ndatabase = \"telemetry_b\"\n[tenants.b]\ndatabase = \"x\"\n", &[]).unwrap();
        load("[output]\ndatabase = \"all\"\ntenant_tag = \"tenant\"\n", &[]).unwrap();
        load("[output]\ndatabase = \"all\"\ntable_prefix = \"{tenant}_\"\n", &[]).unwrap();
        assert!(refused("[output]\ndatabase = \"all\"\n").contains("`output.database`: \"all\""));
        assert!(refused("[output]\ndatabase = \"all\"\ntable_prefix = \"x_\"\n").contains("output.database"));
        assert!(
            refused("[output]\ndatabase = \"all\"\ntable_prefix = \"{tenant}\"\n").contains("table_prefix")
        );
    }

    #[test]
    fn a_row_is_read_key_by_key_and_names_no_files() {
        let good =
            of_row("acme", r#"{"database": "x", "burst": 3, "fields_of": {"t": ["f"]}, "tables": null}"#);
        let good = good.unwrap();
        assert_eq!((good.database.as_deref(), good.burst, good.tables), (Some("x"), Some(3.0), None));
        for (settings, words) in [
            (r#"{"databse": "x"}"#, "`tenants.acme.databse`: \"x\""),
            (r#"{"burst": "many"}"#, "`tenants.acme.burst`: \"many\""),
            (r#"{"output_token_file": "/etc/passwd"}"#, "tenants.acme.output_token_file"),
            ("[]", "`tenants.acme`: "),
        ] {
            let error = of_row("acme", settings).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = of_row("acme", r#"{"output_token": 17}"#).unwrap_err().to_string();
        assert!(error.contains("output_token") && !error.contains(": 17 ("), "{error}");
    }

    #[test]
    fn one_lies_over_the_other_for_what_it_names() {
        let file = of_row("a", r#"{"database": "x", "burst": 3}"#).unwrap();
        let table = of_row("a", r#"{"burst": 5, "tables": ["t"]}"#).unwrap();
        let both = file.under(&table);
        assert_eq!(both, of_row("a", r#"{"database": "x", "burst": 5, "tables": ["t"]}"#).unwrap());
        assert_eq!(file.under(&TenantSection::default()), file);
        assert_eq!(
            TenantSection::example().len() + 1,
            TenantSection::KEYS.len(),
            "fields_of has a form of its own"
        );
    }
}

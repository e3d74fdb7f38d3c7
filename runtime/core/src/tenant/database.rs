//! The database of a tenant's lines, and the check that the output accepts its name.

use crate::ids::DatabaseName;

/// The database names that an output accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// InfluxDB 3: ASCII letters, digits, `_` and `-`, a letter or digit first, 1 to 511 bytes.
    InfluxDb3,
    /// InfluxDB 1 and 2: no control characters, no slashes, 1 to 255 bytes.
    Older,
    /// A folder's name: as `Older`, and not `.` or `..`.
    Folder,
}

impl NameRule {
    fn takes(self, name: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match self {
            NameRule::InfluxDb3 => {
                name.len() <= 511
                    && name.bytes().all(plain)
                    && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            }
            NameRule::Older | NameRule::Folder => {
                (1..=255).contains(&name.len())
                    && !name.contains(|c: char| c.is_control() || c == '/' || c == '\\')
                    && !(self == NameRule::Folder && name.starts_with('.'))
            }
        }
    }

    /// The form of an acceptable name, for an error text.
    pub fn expected(self) -> &'static str {
        match self {
            NameRule::InfluxDb3 => {
                "ASCII letters, digits, _ and -, a letter or digit first, at most 511 bytes"
            }
            NameRule::Older => "no slashes and no control characters, at most 255 bytes",
            NameRule::Folder => "no slashes, no control characters and no dot first, at most 255 bytes",
        }
    }
}

/// The placeholder of the tenant's name in a template.
pub const TENANT: &str = "{tenant}";

/// The name of a database, perhaps with `{tenant}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseTemplate {
    template: String,
    rule: NameRule,
}

impl DatabaseTemplate {
    pub fn new(template: &str, rule: NameRule) -> Self {
        Self { template: template.into(), rule }
    }

    pub fn rule(&self) -> NameRule {
        self.rule
    }

    pub fn as_str(&self) -> &str {
        &self.template
    }

    /// The database of a tenant.
    ///
    /// # Errors
    /// The fault of a name that the output would never accept.
    pub fn name_of(&self, tenant: &str) -> Result<DatabaseName, String> {
        let name = self.template.replace(TENANT, tenant);
        if self.rule.takes(&name) {
            return Ok(DatabaseName::new(&name));
        }
        let expected = self.rule.expected();
        Err(format!("invalid database name {name:?}: expected {expected}"))
    }

    /// True if all tenants have the same one.
    pub fn is_shared(&self) -> bool {
        !self.template.contains(TENANT)
    }

    /// The tenant whose database has this name; of a shared one there is none.
    pub fn tenant_of(&self, database: &str) -> Option<String> {
        let places = self.template.matches(TENANT).count();
        let fixed = self.template.len() - places * TENANT.len();
        let bytes = database.len().checked_sub(fixed)?.checked_div(places)?;
        let begin = self.template.find(TENANT)?;
        let tenant = database.get(begin..begin + bytes)?;
        (self.template.replace(TENANT, tenant) == database).then(|| tenant.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_output_could_never_take_are_refused() {
        let v3 = DatabaseTemplate::new("telemetry_{tenant}", NameRule::InfluxDb3);
        assert_eq!(v3.name_of("t-01").unwrap().as_str(), "telemetry_t-01");
        for tenant in ["a#b", "a b", "ä", "a/b"] {
            assert!(v3.name_of(tenant).is_err(), "{tenant}");
        }
        let folder = DatabaseTemplate::new("{tenant}", NameRule::Folder);
        for tenant in ["", "..", ".", "a/b", "a\\b", "a\nb"] {
            assert!(folder.name_of(tenant).is_err(), "{tenant:?}");
        }
        assert!(folder.name_of("Grün & Söhne").is_ok());
    }

    #[test]
    fn a_name_leads_back_to_its_tenant() {
        let of = |template, name| DatabaseTemplate::new(template, NameRule::Older).tenant_of(name);
        assert_eq!(of("telemetry_{tenant}", "telemetry_acme").as_deref(), Some("acme"));
        assert_eq!(of("{tenant}-{tenant}.x", "a-b-a-b.x").as_deref(), Some("a-b"));
        assert_eq!(of("{tenant}-{tenant}.x", "a-b.x"), None);
        assert_eq!(of("telemetry_{tenant}", "other"), None);
        assert_eq!(of("shared", "shared"), None);
    }
}

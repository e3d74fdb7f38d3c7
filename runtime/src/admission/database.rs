//! The database that a tenant's lines go to, and whether the output could ever take its name.

use crate::domain::ids::DatabaseName;

/// What names the output takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// InfluxDB 3: ASCII letters, digits, `_` and `-`, a letter or digit first, 1 to 511 bytes.
    InfluxDb3,
    /// InfluxDB 1 and 2: no control characters, no slashes, 1 to 255 bytes.
    Older,
    /// A folder's name: as `Older`, and not `.` or `..`.
    Folder,
}

/// `output.database`, with `{tenant}` in it.
#[derive(Clone, Debug)]
pub struct DatabaseTemplate {
    template: String,
    rule: NameRule,
}

impl DatabaseTemplate {
    pub fn new(template: &str, rule: NameRule) -> Self {
        Self { template: template.into(), rule }
    }

    /// The database of a tenant.
    ///
    /// # Errors
    /// What is wrong with the name, where the output could never take it.
    pub fn name_of(&self, tenant: &str) -> Result<DatabaseName, String> {
        let name = self.template.replace("{tenant}", tenant);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = match self.rule {
            NameRule::InfluxDb3 => {
                name.len() <= 511
                    && name.bytes().all(plain)
                    && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            }
            NameRule::Older | NameRule::Folder => {
                (1..=255).contains(&name.len())
                    && !name.contains(|c: char| c.is_control() || c == '/' || c == '\\')
                    && !(self.rule == NameRule::Folder && name.starts_with('.'))
            }
        };
        if fits { Ok(DatabaseName::new(&name)) } else { Err(self.fault_of(tenant)) }
    }

    /// What is wrong with the database of a tenant, and what would be right.
    pub fn fault_of(&self, tenant: &str) -> String {
        let name = self.template.replace("{tenant}", tenant);
        let expected = match self.rule {
            NameRule::InfluxDb3 => {
                "ASCII letters, digits, _ and -, a letter or digit first, at most 511 bytes"
            }
            NameRule::Older => "no slashes and no control characters, at most 255 bytes",
            NameRule::Folder => "no slashes, no control characters and no dot first, at most 255 bytes",
        };
        format!("the database {name:?} could never be written to: expected {expected}")
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
}

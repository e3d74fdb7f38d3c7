//! Settings of tenants that come from the registry's table, laid over those of the file. A row that is
//! not good leaves in force what was: its neighbours are none the worse.

use std::collections::{BTreeMap, BTreeSet};

use toml::Table;

use crate::config::effective::EffectiveConfig;
use crate::config::error::ConfigError;
use crate::config::sections::{Config, TenantSection};
use crate::config::source::ValueSource;
use crate::config::tenants::{add_placement, check_one, named, of_row, others};

/// Rows that hold, by tenant.
pub type TenantRows = BTreeMap<String, TenantSection>;

/// The tenants of a file with the rows that hold laid over them.
pub fn merged(file: &Config, rows: &TenantRows) -> BTreeMap<String, TenantSection> {
    let mut tenants = file.tenants.clone();
    for (name, row) in rows {
        tenants.insert(name.clone(), one(file, name, row));
    }
    tenants
}

/// Lays rows that hold over a configuration that was loaded, and notes where each value came from.
pub fn lay_over(effective: &mut EffectiveConfig, rows: &TenantRows) {
    effective.config.tenants = merged(&effective.config, rows);
    for (name, row) in rows {
        for key in Table::try_from(row).expect("settings are a table").keys() {
            effective.sources.note(&format!("tenants.{name}.{key}"), ValueSource::Table);
        }
    }
}

fn one(file: &Config, name: &str, row: &TenantSection) -> TenantSection {
    file.tenants.get(name).map_or_else(|| row.clone(), |own| own.under(row))
}

/// Merges the rows of the table (tenant, settings as JSON) into those in force. Gives the rows in force
/// afterwards, and the faults of the others.
///
/// # Errors
/// The rows in force do not fit this file.
pub fn merge_rows(
    file: &Config,
    in_force: &TenantRows,
    table: &[(String, String)],
) -> Result<(TenantRows, Vec<ConfigError>), ConfigError> {
    let mut faults = Vec::new();
    // What each tenant is to have; None: no row.
    let mut wanted: BTreeMap<String, Option<TenantSection>> =
        in_force.keys().map(|name| (name.clone(), None)).collect();
    for (name, settings) in table {
        let row = of_row(name, settings).and_then(|row| {
            check_one(file, name, &one(file, name, &row))?;
            Ok(row)
        });
        match row {
            Ok(row) => _ = wanted.insert(name.clone(), Some(row)),
            Err(fault) => {
                faults.push(fault);
                wanted.remove(name);
            }
        }
    }
    let mut placements = others(file)?;
    let names: BTreeSet<&String> = file.tenants.keys().chain(in_force.keys()).collect();
    placements.reserve(names.iter().copied());
    for name in names {
        let settings = match in_force.get(name) {
            Some(row) => one(file, name, row),
            None => file.tenants[name].clone(),
        };
        add_placement(file, &mut placements, name, &settings)?;
    }
    let mut rows = in_force.clone();
    let mut left: Vec<(String, Option<TenantSection>)> =
        wanted.into_iter().filter(|(name, row)| in_force.get(name) != row.as_ref()).collect();
    // One may stand where another has to go first, so as long as any can be placed, the rest is tried
    // again.
    loop {
        let (before, mut refused) = (left.len(), Vec::new());
        for (name, row) in std::mem::take(&mut left) {
            let settings = match &row {
                Some(row) => Some(one(file, &name, row)),
                None => file.tenants.get(&name).cloned(),
            };
            let placed = match &settings {
                Some(settings) => add_placement(file, &mut placements, &name, settings),
                None => {
                    let vacated = placements.remove(&name);
                    vacated.map_err(|fault| {
                        named(fault, |_| {
                            format!("tenants.{name}.database` without a row in the table `tenants")
                        })
                    })
                }
            };
            match (placed, row) {
                (Err(fault), row) => {
                    refused.push(fault);
                    left.push((name, row));
                }
                (Ok(()), Some(row)) => _ = rows.insert(name, row),
                (Ok(()), None) => _ = rows.remove(&name),
            }
        }
        if left.is_empty() || left.len() == before {
            faults.extend(refused);
            return Ok((rows, faults));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sections::Config;

    fn file(tenants: &str) -> Config {
        toml::from_str(tenants).unwrap()
    }

    fn take(file: &Config, in_force: &TenantRows, table: &[(&str, &str)]) -> (TenantRows, Vec<String>) {
        let table: Vec<_> = table.iter().map(|(name, row)| (name.to_string(), row.to_string())).collect();
        let (rows, faults) = merge_rows(file, in_force, &table).unwrap();
        (rows, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_row_wins_over_the_file_for_what_it_names() {
        let file = file("[tenants.a]\ndatabase = \"x\"\nburst = 3\n");
        let (rows, faults) =
            take(&file, &TenantRows::new(), &[("a", r#"{"burst": 5}"#), ("b", r#"{"burst": 7}"#)]);
        assert!(faults.is_empty(), "{faults:?}");
        let tenants = merged(&file, &rows);
        assert_eq!((tenants["a"].database.as_deref(), tenants["a"].burst), (Some("x"), Some(5.0)));
        assert_eq!(tenants["b"].burst, Some(7.0));
    }

    #[test]
    fn a_bad_row_leaves_in_force_what_was_and_its_neighbours_alone() {
        let file = file("[tenants.a]\ndatabase = \"x\"\n");
        let (rows, _) = take(&file, &TenantRows::new(), &[("b", r#"{"burst": 7}"#)]);
        for bad in [
            r#"{"burst": 0}"#,
            r#"{"bursts": 1}"#,
            "nonsense",
            r#"{"database": "x"}"#,
            r#"{"spool_when_full": "no"}"#,
        ] {
            let (after, faults) = take(&file, &rows, &[("b", bad), ("c", r#"{"burst": 2}"#)]);
            assert_eq!(faults.len(), 1, "{bad}: {faults:?}");
            assert!(faults[0].contains("tenants.b"), "{faults:?}");
            assert_eq!((after["b"].burst, after["c"].burst), (Some(7.0), Some(2.0)));
        }
        let (after, faults) = take(&file, &rows, &[]);
        assert!(after.is_empty() && faults.is_empty());
    }

    #[test]
    fn tenants_may_change_places() {
        let file = file("");
        let (rows, _) =
            take(&file, &TenantRows::new(), &[("a", r#"{"database":"x"}"#), ("b", r#"{"database":"y"}"#)]);
        let swapped = [("a", r#"{"database":"y"}"#), ("b", r#"{"database":"z"}"#)];
        let (after, faults) = take(&file, &rows, &swapped);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(after["a"].database.as_deref(), Some("y"));
    }

    #[test]
    fn who_has_no_row_any_more_must_be_told_apart_all_the_same() {
        let file = file("");
        let table = [("b", r#"{"database":"elsewhere"}"#), ("a", r#"{"database":"telemetry_b"}"#)];
        let (rows, faults) = take(&file, &TenantRows::new(), &table);
        assert!(faults.is_empty(), "{faults:?}");
        let (after, faults) = take(&file, &rows, &table[1..]);
        assert_eq!(faults.len(), 1);
        assert_eq!(after, rows, "b keeps what it had");
        let (after, faults) = take(&file, &rows, &[("a", r#"{"database":"telemetry_a"}"#)]);
        assert!(faults.is_empty() && !after.contains_key("b"), "{faults:?}");
    }
}

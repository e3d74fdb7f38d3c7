//! The configuration: keys, the sources of their values, checks, and the settings of each part.
//!
//! Rank, highest first: `TIDEGATE_` variables, the TOML file, the variables of the Python service
//! that Tidegate succeeds, defaults. Everything is checked before a socket opens.

pub mod sections;
pub mod words;
pub(crate) mod source;
pub mod layers;
pub(crate) mod error;
pub(crate) mod redaction;
pub mod checks;
pub mod postgres_url;
pub(crate) mod topics;
pub(crate) mod effective;
pub mod tenants;
pub mod tenant_rows;
pub(crate) mod tenant_config;
pub(crate) mod differences;
pub(crate) mod live_keys;
pub mod machine;
pub mod budget_plan;
pub mod report;
pub mod remote;
pub mod in_force;
pub mod settings;

use std::path::Path;

pub use crate::config::effective::CurrentConfig;
pub use crate::config::effective::EffectiveConfig;
pub use crate::config::error::ConfigError;
pub use crate::config::sections::Config;
pub use crate::config::source::Environment;
pub use crate::config::source::ValueSource;
pub use crate::config::source::ValueSources;

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "tidegate.toml";

/// Reads and checks the configuration. Without `file`, `tidegate.toml` in the working directory is
/// read if it is there.
///
/// # Errors
/// `ConfigError` names the first invalid key or variable.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<EffectiveConfig, ConfigError> {
    let default = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| default.exists().then_some(default));
    match file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
            load_text(path, &text, environment)
        }
        None => checked(layers::merge(None, environment)?),
    }
}

/// Checks a configuration whose text is there. `path` names it in errors.
///
/// # Errors
/// `ConfigError` names the first invalid key or variable.
pub fn load_text(path: &Path, text: &str, environment: &Environment) -> Result<EffectiveConfig, ConfigError> {
    checked(layers::merge(Some((path, text)), environment)?)
}

fn checked(mut effective: EffectiveConfig) -> Result<EffectiveConfig, ConfigError> {
    checks::check(&effective.config, &mut effective.notes)?;
    Ok(effective)
}

/// The secret that a pair of keys names: the value itself, or the content of the file without its
/// last line break. Empty when neither is set.
///
/// # Errors
/// The file cannot be read, or holds nothing: who names one wants a secret, and an empty one would open
/// what it should close.
pub fn secret(key: &str, value: &str, file: &str) -> Result<String, ConfigError> {
    if file.is_empty() {
        return Ok(value.to_owned());
    }
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Value {
        key: format!("{key}_file"),
        value: format!("{file:?}"),
        expected: format!("expected a file that can be read: {error}"),
    })?;
    if others_write(file) {
        return Err(ConfigError::value(
            &format!("{key}_file"),
            file,
            "a file that not every user can write; chmod o-w it",
        ));
    }
    if text.trim().is_empty() {
        return Err(ConfigError::value(
            &format!("{key}_file"),
            file,
            "a file that contains the secret; this file is empty",
        ));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// True for a file that every user can write: they could choose the secret. A group may be the owner's alone.
fn others_write(file: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o002 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_choose_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "t").unwrap();
        for (mode, good) in [(0o600, true), (0o644, true), (0o660, true), (0o602, false), (0o666, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = secret("admin.token", "", file.to_str().unwrap());
            assert_eq!(read.is_ok(), good, "{mode:o}: {read:?}");
        }
    }

    #[test]
    fn a_secret_is_what_its_file_holds_and_a_file_that_holds_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let file = file.to_str().unwrap();
        assert_eq!(secret("admin.token", "", "").unwrap(), "");
        assert_eq!(secret("admin.token", "own", "").unwrap(), "own");
        std::fs::write(file, " a b \r\n").unwrap();
        assert_eq!(secret("admin.token", "", file).unwrap(), " a b ");
        for nothing in ["", "\n", " \t\r\n\n"] {
            std::fs::write(file, nothing).unwrap();
            let error = secret("admin.token", "", file).unwrap_err().to_string();
            for word in ["admin.token_file", file, "empty"] {
                assert!(error.contains(word), "{nothing:?}: {error}");
            }
        }
        std::fs::remove_file(file).unwrap();
        assert!(secret("admin.token", "", file).unwrap_err().to_string().contains("admin.token_file"));
    }
}

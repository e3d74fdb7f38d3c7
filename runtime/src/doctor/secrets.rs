//! The permissions of files that hold secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::doctor::finding::{Finding, Level};

const CHECK: &str = "secrets";

pub fn check(config: &Config, config_file: Option<&Path>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = files(config, config_file)
        .into_iter()
        .filter_map(|(what, path)| judge(&what, &path, mode(&path)?))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "Only their owners can read the files of secrets."));
    }
    findings
}

/// Files and folders of secrets, and what names them.
fn files(config: &Config, config_file: Option<&Path>) -> Vec<(String, PathBuf)> {
    let mut files: Vec<(String, PathBuf)> = [
        ("data_dir", &config.data_dir),
        ("mqtt.password_file", &config.mqtt.password_file),
        ("registry.password_file", &config.registry.password_file),
        ("output.token_file", &config.output.token_file),
        ("output.password_file", &config.output.password_file),
        ("admin.token_file", &config.admin.token_file),
        ("admin.tenant_tokens_dir", &config.admin.tenant_tokens_dir),
        ("listen.tls_key_file", &config.listen.tls_key_file),
        ("fleet.postgres_password_file", &config.fleet.postgres_password_file),
    ]
    .into_iter()
    .filter(|(_, path)| !path.is_empty())
    .map(|(key, path)| (key.to_owned(), PathBuf::from(path)))
    .collect();
    for (name, tenant) in &config.tenants {
        for (key, file) in [
            ("output_token_file", &tenant.output_token_file),
            ("output_password_file", &tenant.output_password_file),
        ] {
            files.extend(file.as_ref().map(|file| (format!("tenants.{name}.{key}"), PathBuf::from(file))));
        }
    }
    let inline = [&config.mqtt.password, &config.output.token, &config.output.password];
    let has_secrets = inline.iter().any(|secret| !secret.is_empty())
        || config.registry.url.contains('@')
        || config.output.url.contains('@')
        || config.fleet.postgres.contains('@')
        || config.tenants.values().any(|own| own.output_token.is_some() || own.output_password.is_some());
    if let (Some(file), true) = (config_file, has_secrets) {
        files.push(("the configuration, which has a secret in it,".into(), file.to_owned()));
    }
    files
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.permissions().mode())
}

/// The finding on one file; `None` if only its owner, or a group, can read it: services share secrets so.
fn judge(what: &str, path: &Path, mode: u32) -> Option<Finding> {
    let shown = path.display();
    let advice = format!("chmod o-rwx,g-w '{shown}'");
    if mode & 0o002 != 0 {
        let state = format!("Every user can write {what} ({shown}, mode {:03o}).", mode & 0o777);
        return Some(Finding::new(CHECK, Level::Error, state, advice));
    }
    if mode & 0o004 != 0 {
        let state = format!("Every user can read {what} ({shown}, mode {:03o}).", mode & 0o777);
        return Some(Finding::new(CHECK, Level::Warning, state, advice));
    }
    if mode & 0o020 != 0 {
        let state = format!("A group can write {what} ({shown}, mode {:03o}).", mode & 0o777);
        return Some(Finding::new(CHECK, Level::Note, state, advice));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_others_can_read_or_write_are_found() {
        let level = |mode| judge("x", Path::new("x"), mode).map(|finding| finding.level);
        assert_eq!(level(0o100600), None);
        assert_eq!(level(0o100640), None);
        assert_eq!(level(0o100644), Some(Level::Warning));
        assert_eq!(level(0o100660), Some(Level::Note));
        assert_eq!(level(0o100666), Some(Level::Error));
        assert_eq!(level(0o040700), None);
        let mut config = Config::default();
        assert_eq!(files(&config, Some(Path::new("c"))).len(), 1);
        config.output.token = "secret".into();
        assert_eq!(files(&config, Some(Path::new("c"))).len(), 2);
    }
}

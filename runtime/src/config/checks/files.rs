//! Checks of the files that the configuration names, before a socket opens.

use std::os::unix::fs::PermissionsExt;

use crate::config;
use crate::config::error::ConfigError;
use crate::config::sections::Config;
use crate::config::settings;
use crate::source::listener::{CertificateReloader, TlsFileError};

/// The files of secrets that others than their owner can read, in words.
pub fn readable_secrets(config: &Config) -> Vec<String> {
    let files = [
        ("mqtt.password_file", &config.mqtt.password_file),
        ("registry.password_file", &config.registry.password_file),
        ("output.token_file", &config.output.token_file),
        ("output.password_file", &config.output.password_file),
        ("admin.read_token_file", &config.admin.read_token_file),
        ("admin.key_file", &config.admin.key_file),
        ("listen.tls_key_file", &config.listen.tls_key_file),
    ];
    let mode = |file: &String| std::fs::metadata(file).map(|metadata| metadata.permissions().mode() & 0o777);
    files
        .iter()
        .filter(|(_, file)| !file.is_empty())
        .filter_map(|(key, file)| Some((key, file, mode(file).ok()?)))
        .filter(|(.., mode)| mode & 0o077 != 0)
        .map(|(key, file, mode)| {
            format!("{key} = {file:?} can be read by others (mode {mode:04o}): chmod 600 {file}")
        })
        .collect()
}

/// Faults of the files of secrets and certificates, and of the folder of tokens.
pub fn faults(config: &Config) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    for (key, value, file) in [
        ("mqtt.password", &config.mqtt.password, &config.mqtt.password_file),
        ("registry.password", &String::new(), &config.registry.password_file),
        ("output.token", &config.output.token, &config.output.token_file),
        ("output.password", &config.output.password, &config.output.password_file),
        ("admin.token", &String::new(), &config.admin.token_file),
        ("admin.read_token", &String::new(), &config.admin.read_token_file),
    ] {
        faults.extend(config::secret(key, value, file).err());
    }
    let tokens = &config.admin.tenant_tokens_dir;
    if !tokens.is_empty()
        && let Err(error) = std::fs::read_dir(tokens)
    {
        let expected = format!("a folder that can be read ({error})");
        faults.push(ConfigError::value("admin.tenant_tokens_dir", tokens, expected));
    }
    let listen = settings::tls(config).filter(|_| !config.listen.address.is_empty());
    for tls in [listen, settings::admin_tls(config)].into_iter().flatten() {
        let (keys, cert_file) = (tls.keys, tls.cert_file.clone());
        let Err(error) = CertificateReloader::open(tls) else { continue };
        faults.push(match error {
            TlsFileError::File { key, path, fault } => {
                ConfigError::value(key, path, format!("a usable PEM file: {fault}"))
            }
            error => ConfigError::value(keys.cert_file, cert_file, format!("usable files: {error}")),
        });
    }
    faults
}

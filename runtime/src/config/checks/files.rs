//! Checks of the files that the configuration names, before a socket opens.

use crate::config;
use crate::config::error::ConfigError;
use crate::config::sections::Config;
use crate::config::settings;
use crate::source::listener::{CertificateReloader, TlsFileError};

/// Faults of the files of secrets and certificates, and of the folder of tokens.
pub fn faults(config: &Config) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    for (key, value, file) in [
        ("mqtt.password", &config.mqtt.password, &config.mqtt.password_file),
        ("registry.password", &String::new(), &config.registry.password_file),
        ("output.token", &config.output.token, &config.output.token_file),
        ("output.password", &config.output.password, &config.output.password_file),
        ("admin.token", &String::new(), &config.admin.token_file),
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
    if !config.listen.address.is_empty()
        && let Some(tls) = settings::tls(config)
        && let Err(error) = CertificateReloader::open(tls)
    {
        faults.push(match error {
            TlsFileError::File { key, path, fault } => {
                ConfigError::value(key, path, format!("a usable PEM file: {fault}"))
            }
            error => ConfigError::value(
                "listen.tls_cert_file",
                &config.listen.tls_cert_file,
                format!("usable files: {error}"),
            ),
        });
    }
    faults
}

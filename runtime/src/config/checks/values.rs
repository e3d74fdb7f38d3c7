//! Checks of single values: words, numbers, addresses, URLs.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::config::error::ConfigError;
use crate::core::redacted_url::RedactedUrl;

pub(crate) fn within<T: PartialOrd + std::fmt::Debug + std::fmt::Display + Copy>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), ConfigError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(ConfigError::value(key, value, format!("{least} to {most}")))
}

pub(crate) fn address(key: &str, value: &str) -> Result<SocketAddr, ConfigError> {
    value
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| ConfigError::value(key, value, "host:port, such as 127.0.0.1:1883"))
}

pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// Checks that this is a server's base URL.
///
/// # Errors
/// It is not; names the key.
pub fn server_url(key: &str, url: &str) -> Result<(), ConfigError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let well_formed = rest.is_some_and(|rest| {
        let host_port = rest.split('/').next().unwrap_or_default();
        let host = match host_port.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                if port.parse::<u16>().is_err() {
                    return false;
                }
                host
            }
            _ => host_port,
        };
        let plain = |c: char| c.is_alphanumeric() || "-_.[]:@%".contains(c);
        !host.is_empty() && host.chars().all(plain) && !rest.contains(['?', '#', ' '])
    });
    if well_formed {
        return Ok(());
    }
    Err(ConfigError::value(key, RedactedUrl(url), "http://host:port or https://host:port"))
}

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

/// Paths that the gateway adds to `output.url` itself.
const WRITE_PATHS: [&str; 7] =
    ["/api/v3/write_lp", "/api/v2/write", "/api/v3", "/api/v2", "/api", "/write", "/query"];

/// Checks that this is the base URL of a database server, without the path of its write API.
///
/// # Errors
/// It is not; names the key, and the URL that is right.
pub fn output_url(key: &str, url: &str) -> Result<(), ConfigError> {
    server_url(key, url)?;
    let base = url.trim_end_matches('/');
    let path = WRITE_PATHS.iter().find_map(|path| Some((path, base.strip_suffix(path)?)));
    match path.filter(|(_, rest)| !rest.ends_with(['/', ':'])) {
        Some((path, rest)) => {
            Err(ConfigError::value(key, url, format!("{rest}: the gateway adds {path} itself")))
        }
        None => Ok(()),
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

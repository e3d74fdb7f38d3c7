//! `registry.url`: a connection URI as libpq reads it, with the same meaning of `sslmode`.

pub(crate) use crate::admission::registry::postgres::connection::TlsTrust;
use std::path::PathBuf;

use tokio_postgres::config::SslMode;

/// A connection URI, read.
#[derive(Clone, Debug)]
pub struct PostgresUrl {
    pub server: tokio_postgres::Config,
    pub trust: TlsTrust,
    /// The authority's certificates; None: those of the system.
    pub root_cert: Option<PathBuf>,
}

impl PostgresUrl {
    /// True if a server on another machine is believed without a check of its certificate.
    pub fn believes_anybody(&self) -> bool {
        use tokio_postgres::config::Host;
        let is_remote = |host: &Host| match host {
            Host::Tcp(name) => {
                name != "localhost" && name.parse::<std::net::IpAddr>().map_or(true, |ip| !ip.is_loopback())
            }
            Host::Unix(_) => false,
        };
        matches!(self.trust, TlsTrust::Anybody) && self.server.get_hosts().iter().any(is_remote)
    }
}

/// Reads `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`.
///
/// # Errors
/// The URI is malformed. The text never holds a part of it that could be the password.
pub fn parse(url: &str) -> Result<PostgresUrl, String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("it does not begin with postgres://".into());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut rest, mut mode, mut root_cert) = (Vec::new(), "prefer", None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = value,
            Some(("sslrootcert", value)) => {
                let path = percent_encoding::percent_decode_str(value).decode_utf8();
                root_cert = Some(PathBuf::from(path.map_err(|error| error.to_string())?.into_owned()));
            }
            _ => rest.push(pair),
        }
    }
    let (ssl, trust) = match mode {
        "disable" => (SslMode::Disable, TlsTrust::Anybody),
        "allow" | "prefer" => (SslMode::Prefer, TlsTrust::Anybody),
        "require" if root_cert.is_some() => (SslMode::Require, TlsTrust::Authority),
        "require" => (SslMode::Require, TlsTrust::Anybody),
        "verify-ca" => (SslMode::Require, TlsTrust::Authority),
        "verify-full" => (SslMode::Require, TlsTrust::Host),
        other => {
            let modes = "disable, prefer, require, verify-ca or verify-full";
            return Err(format!("sslmode={other}, expected {modes}"));
        }
    };
    let base = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    let mut server: tokio_postgres::Config =
        base.parse().map_err(|error: tokio_postgres::Error| match std::error::Error::source(&error) {
            Some(cause) => cause.to_string(),
            None => error.to_string(),
        })?;
    if server.get_hosts().is_empty() {
        return Err("it names no host".into());
    }
    if server.get_user().is_none() {
        return Err("it names no user".into());
    }
    server.ssl_mode(ssl).application_name("tidegate");
    Ok(PostgresUrl { server, trust, root_cert })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::SslMode;

    #[test]
    fn the_mode_says_what_is_encrypted_and_whom_is_trusted() {
        let of = |query: &str| {
            let url = parse(&format!("postgres://u:p@h:1/d{query}")).unwrap();
            (url.server.get_ssl_mode(), url.trust)
        };
        assert_eq!(of(""), (SslMode::Prefer, TlsTrust::Anybody));
        assert_eq!(of("?sslmode=disable"), (SslMode::Disable, TlsTrust::Anybody));
        assert_eq!(of("?sslmode=require"), (SslMode::Require, TlsTrust::Anybody));
        assert_eq!(of("?sslmode=require&sslrootcert=/ca.pem"), (SslMode::Require, TlsTrust::Authority));
        assert_eq!(of("?connect_timeout=3&sslmode=verify-full"), (SslMode::Require, TlsTrust::Host));
    }

    #[test]
    fn a_server_elsewhere_that_is_not_checked_is_noted() {
        let of = |url: &str| parse(url).unwrap().believes_anybody();
        assert!(of("postgres://u:p@db.example/d") && of("postgres://u:p@10.0.0.1/d?sslmode=require"));
        assert!(!of("postgres://u:p@127.0.0.1/d") && !of("postgres://u:p@localhost/d"));
        assert!(!of("postgres://u:p@db.example/d?sslmode=verify-full"));
    }

    #[test]
    fn what_is_no_such_url_is_named_without_its_password() {
        for url in ["", "mysql://h", "postgres://u:secret@h:port/d", "postgres://u:secret@h/d?sslmode=maybe"]
        {
            let fault = parse(url).unwrap_err();
            assert!(!fault.contains("secret"), "{url}: {fault}");
        }
        assert!(parse("postgres://h/d").unwrap_err().contains("user"));
    }
}

//! The place of a configuration: a file, an address, or a git checkout.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::config::ConfigError;
use crate::config::DEFAULT_FILE;
use crate::config::source::Environment;

/// The variable of a file with a bearer token for an address.
pub const TOKEN_FILE: &str = "TIDEGATE_CONFIG_TOKEN_FILE";

/// The variable of a PEM file with the authorities that an address is checked by.
pub const CA_FILE: &str = "TIDEGATE_CONFIG_CA_FILE";

/// The place of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOrigin {
    /// A file; `None`: the default one, if it is there.
    File(Option<PathBuf>),
    Remote(RemoteOrigin),
}

/// A place whose versions are checked before they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteOrigin {
    Address(Url),
    /// A folder with `.git`, and the configuration in it.
    Checkout(PathBuf),
}

impl fmt::Display for RemoteOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A query may be a secret: ?private_token=…
            Self::Address(url) if url.query().is_some() => {
                let mut shown = url.clone();
                shown.set_query(None);
                write!(f, "{shown}?(hidden)")
            }
            Self::Address(url) => url.fmt(f),
            Self::Checkout(folder) => write!(f, "{}", folder.display()),
        }
    }
}

impl ConfigOrigin {
    /// The place that `--config` names.
    ///
    /// # Errors
    /// An address that is none, or that anybody on the way could change; a folder that is no checkout.
    pub fn of(named: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = named else { return Ok(Self::File(None)) };
        let text = path.to_str().unwrap_or_default();
        if text.contains("://") {
            return address(text).map(|url| Self::Remote(RemoteOrigin::Address(url)));
        }
        if !path.is_dir() {
            return Ok(Self::File(Some(path.to_owned())));
        }
        if path.join(".git").exists() {
            return Ok(Self::Remote(RemoteOrigin::Checkout(path.to_owned())));
        }
        let expected = format!(
            "a file, https://…, or a git checkout with {DEFAULT_FILE} in it; this folder has no .git"
        );
        Err(ConfigError::value("--config", path, expected))
    }
}

/// An address that nobody on the way can change: TLS, or this machine itself.
fn address(text: &str) -> Result<Url, ConfigError> {
    let shown = text.split('?').next().unwrap_or_default();
    let refuse = |expected: &str| Err(ConfigError::value("--config", shown, expected));
    let Ok(url) = text.parse::<Url>() else { return refuse("an address as https://host/tidegate.toml") };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_near = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(&format!(
            "no user and no password in the address; write a bearer token into a file, and name it in {TOKEN_FILE}"
        ));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near => Ok(url),
        "http" => refuse(
            "https://, because anybody on the way could change the configuration; http:// is for loopback",
        ),
        _ => refuse("https://"),
    }
}

/// The data folder of a gateway whose configuration is not known yet.
pub fn data_dir(environment: &Environment) -> PathBuf {
    let default = || crate::config::Config::default().data_dir;
    environment.get("TIDEGATE_DATA_DIR").cloned().unwrap_or_else(default).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_an_address_or_a_checkout_and_nothing_that_others_could_change() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| ConfigOrigin::of(Some(Path::new(text))).map_err(|error| error.to_string());
        assert_eq!(ConfigOrigin::of(None).unwrap(), ConfigOrigin::File(None));
        assert_eq!(of("a/b.toml"), Ok(ConfigOrigin::File(Some("a/b.toml".into()))));
        for good in [
            "https://config.example/g1.toml",
            "http://127.0.0.1:8000/a",
            "http://[::1]/a",
            "http://localhost/a",
        ] {
            assert!(matches!(of(good), Ok(ConfigOrigin::Remote(RemoteOrigin::Address(_)))), "{good}");
        }
        let secret = of("https://config.example/g1.toml?private_token=s3cret").unwrap();
        let ConfigOrigin::Remote(secret) = secret else { panic!("{secret:?}") };
        assert_eq!(secret.to_string(), "https://config.example/g1.toml?(hidden)");
        for (bad, word) in [
            ("http://config.example/a?token=s3cret", "loopback"),
            ("http://config.example/a", "loopback"),
            ("http://127.0.0.1.example/a", "loopback"),
            ("ftp://config.example/a", "https://"),
            ("https://", "https://host"),
            ("https://u:s3cret@config.example/a", TOKEN_FILE),
        ] {
            let error = of(bad).unwrap_err();
            assert!(
                error.contains(word) && error.contains("--config") && !error.contains("s3cret"),
                "{error}"
            );
        }
        let path = folder.path().to_str().unwrap();
        assert!(of(path).unwrap_err().contains("no .git"));
        std::fs::create_dir(folder.path().join(".git")).unwrap();
        assert_eq!(of(path), Ok(ConfigOrigin::Remote(RemoteOrigin::Checkout(path.into()))));
    }
}

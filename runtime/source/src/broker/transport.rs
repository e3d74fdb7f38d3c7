//! The transport to the broker: its address, TCP, TLS.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, io};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The fault of an `mqtt.url`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    #[error("{0:?} begins with neither mqtt:// nor mqtts://")]
    Scheme(String),
    #[error("{0:?} has no host, or its port is not 1 to 65535: expected mqtt://host:1883")]
    Authority(String),
    #[error("credentials are not allowed in the url: use username and password_file")]
    Credentials,
}

/// The address of a broker: `mqtt://host[:1883]` or `mqtts://host[:8883]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    pub tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(url: &str) -> Result<Self, BrokerUrlError> {
        let (tls, rest) = if let Some(rest) = url.strip_prefix("mqtt://") {
            (false, rest)
        } else if let Some(rest) = url.strip_prefix("mqtts://") {
            (true, rest)
        } else {
            return Err(BrokerUrlError::Scheme(url.to_owned()));
        };
        if rest.contains('@') {
            return Err(BrokerUrlError::Credentials);
        }
        let wrong = || BrokerUrlError::Authority(url.to_owned());
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(wrong());
        }
        let port = match port {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?,
        };
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// The reason for which TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("ca_file {path}: {fault}")]
    CaFile { path: PathBuf, fault: String },
    #[error("this machine has no root certificates; name a ca_file")]
    NoRoots,
    #[error("{0:?} is not a name that a certificate can have")]
    ServerName(String),
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
}

/// Connects to one broker.
pub struct Transport {
    url: BrokerUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// An open connection to the broker, before its CONNECT.
pub enum BrokerStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Reads the roots that are trusted: those of `ca_file`, or the machine's own.
    ///
    /// # Errors
    /// There are none, or `ca_file` cannot be read.
    pub fn new(url: BrokerUrl, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        if !url.tls {
            return Ok(Self { url, tls: None });
        }
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let fault = |fault: String| TlsError::CaFile { path: path.to_owned(), fault };
                let certificates =
                    CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| fault(error.to_string()))?;
                    roots.add(certificate).map_err(|error| fault(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(fault("holds no certificate in PEM form".into()));
                }
            }
            None => {
                let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TlsError::NoRoots);
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name =
            ServerName::try_from(url.host.clone()).map_err(|_| TlsError::ServerName(url.host.clone()))?;
        Ok(Self { url, tls: Some((TlsConnector::from(Arc::new(config)), name)) })
    }

    /// Opens a connection; the caller bounds the time.
    ///
    /// # Errors
    /// The broker cannot be reached, or its certificate is not trusted.
    pub async fn open(&self) -> io::Result<BrokerStream> {
        let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port)).await?;
        tcp.set_nodelay(true)?;
        Ok(match &self.tls {
            None => BrokerStream::Plain(tcp),
            Some((connector, name)) => {
                BrokerStream::Tls(Box::new(connector.connect(name.clone(), tcp).await?))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_scheme_a_host_and_at_most_a_port() {
        let url = |text: &str| text.parse::<BrokerUrl>().map(|url| url.to_string());
        assert_eq!(url("mqtt://broker").unwrap(), "mqtt://broker:1883");
        assert_eq!(url("mqtts://broker/").unwrap(), "mqtts://broker:8883");
        assert_eq!(url("mqtt://[::1]:1884").unwrap(), "mqtt://[::1]:1884");
        assert_eq!(url("mqtt://u:p@broker"), Err(BrokerUrlError::Credentials));
        assert!(matches!(url("http://broker"), Err(BrokerUrlError::Scheme(_))));
        for wrong in ["mqtt://", "mqtt://:1883", "mqtt://b:0", "mqtt://b:x", "mqtt://b/path", "mqtt://[::1"] {
            assert!(matches!(url(wrong), Err(BrokerUrlError::Authority(_))), "{wrong}");
        }
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        let error = Transport::new("mqtts://b".parse().unwrap(), Some(&path)).err().unwrap();
        assert!(error.to_string().contains("ca.pem"), "{error}");
    }
}

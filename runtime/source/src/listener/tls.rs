//! The listener's certificate, and the authorities of client certificates that it trusts. The files are read
//! again when they change. Open connections keep theirs, and files that cannot be used do not replace the
//! certificate in service.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tidegate_core::file_stamp::FileStamp;
use tokio_rustls::TlsAcceptor;

/// The policy for client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    No,
    /// A client that shows one must show a good one.
    Optional,
    Required,
}

/// The files, and the policy for client certificates.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// The authorities of client certificates; unused if these are `No`.
    pub client_ca_file: PathBuf,
    pub client_certificates: ClientCertificates,
}

/// The reason for which the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("{key} = {path:?} cannot be used: {fault}")]
    File { key: &'static str, path: PathBuf, fault: String },
    #[error("listen.tls_cert_file and listen.tls_key_file cannot be used together: {0}")]
    Pair(rustls::Error),
    #[error("listen.client_ca_file cannot be used: {0}")]
    Verifier(String),
}

/// The certificate in service. Shared by all connections.
#[derive(Debug)]
pub struct CertificateReloader {
    settings: TlsSettings,
    config: RwLock<Arc<ServerConfig>>,
    stamps: Mutex<[Option<FileStamp>; 3]>,
}

impl CertificateReloader {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used; the error names the key.
    pub fn open(settings: TlsSettings) -> Result<Self, TlsFileError> {
        // The stamps come first: a file that changes while we read is read again.
        let stamps = stamps(&settings);
        let config = RwLock::new(Arc::new(load(&settings)?));
        Ok(Self { settings, config, stamps: Mutex::new(stamps) })
    }

    /// An acceptor with the certificate that is in service now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().clone())
    }

    /// Reads the files again if they have changed; true if a new certificate is in service.
    ///
    /// # Errors
    /// They cannot be used; the old certificate stays in service. The error is given once a change.
    pub fn refresh(&self) -> Result<bool, TlsFileError> {
        let mut known = self.stamps.lock();
        let now = stamps(&self.settings);
        if *known == now {
            return Ok(false);
        }
        *known = now;
        *self.config.write() = Arc::new(load(&self.settings)?);
        Ok(true)
    }
}

fn stamps(settings: &TlsSettings) -> [Option<FileStamp>; 3] {
    [&settings.cert_file, &settings.key_file, &settings.client_ca_file].map(|path| FileStamp::read(path).ok())
}

fn load(settings: &TlsSettings) -> Result<ServerConfig, TlsFileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("listen.tls_cert_file", &settings.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key_file).map_err(|error| TlsFileError::File {
        key: "listen.tls_key_file",
        path: settings.key_file.clone(),
        fault: error.to_string(),
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsFileError::Pair)?;
    let builder = match settings.client_certificates {
        ClientCertificates::No => builder.with_no_client_auth(),
        asked => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("listen.client_ca_file", &settings.client_ca_file)? {
                roots.add(authority).map_err(|error| TlsFileError::Verifier(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match asked {
                ClientCertificates::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| TlsFileError::Verifier(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(TlsFileError::Pair)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let fault = |fault: String| TlsFileError::File { key, path: path.to_owned(), fault };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))?.collect();
    let found = found.map_err(|error| fault(error.to_string()))?;
    if found.is_empty() {
        return Err(fault("it holds no certificate in PEM form".into()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn write_pair(folder: &Path, name: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.into()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    }

    fn settings(folder: &Path) -> TlsSettings {
        TlsSettings {
            cert_file: folder.join("cert.pem"),
            key_file: folder.join("key.pem"),
            client_ca_file: PathBuf::new(),
            client_certificates: ClientCertificates::No,
        }
    }

    #[test]
    fn a_bad_file_leaves_the_old_one_in_service_and_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path(), "old");
        let reloader = CertificateReloader::open(settings(folder.path())).unwrap();
        assert!(!reloader.refresh().unwrap());
        let in_service = reloader.config.read().clone();
        let good = std::fs::read(folder.path().join("key.pem")).unwrap();
        for bad in [&b"no key"[..], b""] {
            std::fs::write(folder.path().join("key.pem"), bad).unwrap();
            assert!(reloader.refresh().unwrap_err().to_string().contains("key.pem"));
            assert!(!reloader.refresh().unwrap(), "said twice");
            assert!(Arc::ptr_eq(&in_service, &reloader.config.read()));
        }
        std::fs::write(folder.path().join("key.pem"), good).unwrap();
        assert!(reloader.refresh().unwrap());
        assert!(!Arc::ptr_eq(&in_service, &reloader.config.read()));
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_pair(one.path(), "one");
        write_pair(other.path(), "other");
        std::fs::copy(other.path().join("key.pem"), one.path().join("key.pem")).unwrap();
        assert!(matches!(CertificateReloader::open(settings(one.path())), Err(TlsFileError::Pair(_))));
    }

    #[test]
    fn an_authority_file_without_a_certificate_names_its_key() {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path(), "one");
        std::fs::write(folder.path().join("ca.pem"), "nothing").unwrap();
        let settings = TlsSettings {
            client_ca_file: folder.path().join("ca.pem"),
            client_certificates: ClientCertificates::Required,
            ..settings(folder.path())
        };
        let error = CertificateReloader::open(settings).unwrap_err().to_string();
        assert!(error.contains("listen.client_ca_file") && error.contains("ca.pem"), "{error}");
    }
}

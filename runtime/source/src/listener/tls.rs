//! The listener's certificate, and the authorities of client certificates that it trusts. The files are read
//! again when they change. Open connections keep theirs, and files that cannot be used do not replace the
//! certificate in service.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tidegate_core::file_stamp::FileStamp;
use tokio_rustls::TlsAcceptor;

use crate::listener::client_certificate;
use crate::listener::client_certificate::CertificateId;

/// The policy for client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    No,
    /// A client that shows one must show a good one.
    Optional,
    Required,
}

/// The configuration keys of the files, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsKeys {
    pub cert_file: &'static str,
    pub key_file: &'static str,
}

impl TlsKeys {
    /// The keys of the listener.
    pub const LISTEN: Self = Self { cert_file: "listen.tls_cert_file", key_file: "listen.tls_key_file" };
    /// The keys of the admin side.
    pub const ADMIN: Self = Self { cert_file: "admin.cert_file", key_file: "admin.key_file" };
}

/// The files, and the policy for client certificates.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub keys: TlsKeys,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// The authorities of client certificates; unused if these are `No`.
    pub client_ca_file: PathBuf,
    /// The lists of revoked client certificates; empty: there are none.
    pub client_crl_file: PathBuf,
    pub client_certificates: ClientCertificates,
}

/// The reason for which the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("{key} = {path:?} cannot be used: {fault}")]
    File { key: &'static str, path: PathBuf, fault: String },
    #[error("{} and {} cannot be used together: {error}", keys.cert_file, keys.key_file)]
    Pair { keys: TlsKeys, error: rustls::Error },
    #[error("listen.client_ca_file cannot be used: {0}")]
    Verifier(String),
}

/// The certificate in service. Shared by all connections.
#[derive(Debug)]
pub struct CertificateReloader {
    settings: TlsSettings,
    in_service: RwLock<Arc<InService>>,
    stamps: Mutex<[Option<FileStamp>; 4]>,
}

/// The files as they were read last.
#[derive(Debug)]
struct InService {
    config: Arc<ServerConfig>,
    /// The end of our certificate.
    not_after: Option<SystemTime>,
    revoked: HashSet<CertificateId>,
}

impl CertificateReloader {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used; the error names the key.
    pub fn open(settings: TlsSettings) -> Result<Self, TlsFileError> {
        // The stamps come first: a file that changes while we read is read again.
        let stamps = stamps(&settings);
        let in_service = RwLock::new(Arc::new(load(&settings)?));
        Ok(Self { settings, in_service, stamps: Mutex::new(stamps) })
    }

    /// An acceptor with the certificate that is in service now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.in_service.read().config.clone())
    }

    /// The key that names the certificate, and the end of its validity.
    pub fn not_after(&self) -> (&'static str, Option<SystemTime>) {
        (self.settings.keys.cert_file, self.in_service.read().not_after)
    }

    /// True for a client certificate in the lists of revoked ones.
    pub(crate) fn is_revoked(&self, id: &CertificateId) -> bool {
        let in_service = self.in_service.read();
        !in_service.revoked.is_empty() && in_service.revoked.contains(id)
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
        *self.in_service.write() = Arc::new(load(&self.settings)?);
        Ok(true)
    }
}

fn stamps(settings: &TlsSettings) -> [Option<FileStamp>; 4] {
    let TlsSettings { cert_file, key_file, client_ca_file, client_crl_file, .. } = settings;
    [cert_file, key_file, client_ca_file, client_crl_file].map(|path| FileStamp::read(path).ok())
}

fn load(settings: &TlsSettings) -> Result<InService, TlsFileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let keys = settings.keys;
    let pair = |error| TlsFileError::Pair { keys, error };
    let chain = certificates(keys.cert_file, &settings.cert_file)?;
    let not_after = chain.first().and_then(|certificate| client_certificate::not_after(certificate));
    let mut revoked = HashSet::new();
    let key = PrivateKeyDer::from_pem_file(&settings.key_file).map_err(|error| TlsFileError::File {
        key: keys.key_file,
        path: settings.key_file.clone(),
        fault: error.to_string(),
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match settings.client_certificates {
        ClientCertificates::No => builder.with_no_client_auth(),
        asked => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("listen.client_ca_file", &settings.client_ca_file)? {
                roots.add(authority).map_err(|error| TlsFileError::Verifier(error.to_string()))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if !settings.client_crl_file.as_os_str().is_empty() {
                let lists = revocation_lists(&settings.client_crl_file, &mut revoked)?;
                // An authority without a list there has revoked nothing.
                verifier = verifier
                    .with_crls(lists)
                    .only_check_end_entity_revocation()
                    .allow_unknown_revocation_status();
            }
            let verifier = match asked {
                ClientCertificates::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| TlsFileError::Verifier(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = Arc::new(builder.with_single_cert(chain, key).map_err(pair)?);
    Ok(InService { config, not_after, revoked })
}

/// The lists of a PEM file, with what they revoke added to `revoked`.
fn revocation_lists(
    path: &Path,
    revoked: &mut HashSet<CertificateId>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFileError> {
    let fault =
        |fault: String| TlsFileError::File { key: "listen.client_crl_file", path: path.to_owned(), fault };
    let lists: Result<Vec<CertificateRevocationListDer<'_>>, _> =
        CertificateRevocationListDer::pem_file_iter(path)
            .map_err(|error| fault(error.to_string()))?
            .collect();
    let lists = lists.map_err(|error| fault(error.to_string()))?;
    if lists.is_empty() {
        return Err(fault("it holds no revocation list in PEM form".into()));
    }
    for list in &lists {
        revoked.extend(client_certificate::revoked(list).map_err(|error| fault(error.to_string()))?);
    }
    Ok(lists)
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
            keys: TlsKeys::LISTEN,
            client_crl_file: PathBuf::new(),
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
        let in_service = reloader.in_service.read().clone();
        let good = std::fs::read(folder.path().join("key.pem")).unwrap();
        for bad in [&b"no key"[..], b""] {
            std::fs::write(folder.path().join("key.pem"), bad).unwrap();
            assert!(reloader.refresh().unwrap_err().to_string().contains("key.pem"));
            assert!(!reloader.refresh().unwrap(), "said twice");
            assert!(Arc::ptr_eq(&in_service, &reloader.in_service.read()));
        }
        std::fs::write(folder.path().join("key.pem"), good).unwrap();
        assert!(reloader.refresh().unwrap());
        assert!(!Arc::ptr_eq(&in_service, &reloader.in_service.read()));
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_pair(one.path(), "one");
        write_pair(other.path(), "other");
        std::fs::copy(other.path().join("key.pem"), one.path().join("key.pem")).unwrap();
        assert!(matches!(CertificateReloader::open(settings(one.path())), Err(TlsFileError::Pair { .. })));
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

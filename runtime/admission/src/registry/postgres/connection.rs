//! Connections to the database server, and its faults with advice for the operator.

use std::error::Error as _;
use std::fmt::Write;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::mpsc::UnboundedSender;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::limits::REGISTRY_CONNECT_TIMEOUT_S;

/// The proof that the server must give of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsTrust {
    /// No proof: encrypted or not (`prefer`, `require`), as in libpq.
    Anybody,
    /// A certificate that the authority vouches for (`verify-ca`, or `require` with `sslrootcert`).
    Authority,
    /// A certificate for the host in the URL (`verify-full`).
    Host,
}

/// The reason that the database cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    #[error("sslrootcert {}: {error}", path.display())]
    RootCert { path: PathBuf, error: rustls::pki_types::pem::Error },
    #[error("TLS to the registry's database: {0}")]
    Tls(String),
    #[error("the registry's database {at} cannot be used: {why}")]
    Connect { at: String, why: String },
    #[error("the registry's database gave no answer within {ms} ms to {doing}")]
    Silent { doing: &'static str, ms: u128 },
    #[error("{doing} in the registry's database: {why}")]
    Query { doing: &'static str, why: String, state: Option<SqlState> },
}

impl PgError {
    /// True if a value is at fault, and not the database: text that its encoding cannot hold, a number
    /// out of range (class 22), a row that a constraint forbids (23), or one over a limit of the
    /// program, such as a key too long for an index (54).
    pub fn is_about_a_value(&self) -> bool {
        match self {
            Self::Query { state: Some(state), .. } => {
                ["22", "23", "54"].iter().any(|class| state.code().starts_with(class))
            }
            _ => false,
        }
    }

    /// The fault of a query; `doing` names it.
    pub fn query(doing: &'static str, error: &tokio_postgres::Error) -> Self {
        Self::Query { doing, why: words(error), state: error.code().cloned() }
    }
}

/// The server's error, with advice for the operator.
fn words(error: &tokio_postgres::Error) -> String {
    let Some(said) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            let deeper_text = deeper.to_string();
            if !text.contains(&deeper_text) {
                let _ = write!(text, ": {deeper_text}");
            }
            cause = deeper.source();
        }
        return text;
    };
    let mut text = format!("{} (SQLSTATE {})", said.message(), said.code().code());
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        let _ = write!(text, "; {more}");
    }
    let advice = match *said.code() {
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => {
            "`tidegate registry init` creates the expected tables"
        }
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check user and password of registry.url"
        }
        SqlState::INVALID_CATALOG_NAME => "check the database of registry.url",
        SqlState::INSUFFICIENT_PRIVILEGE => "the user of registry.url needs this privilege",
        SqlState::LOCK_NOT_AVAILABLE => "another session holds a lock on the table",
        SqlState::QUERY_CANCELED => "the query took longer than registry.query_timeout_ms",
        _ => return text,
    };
    let _ = write!(text, ": {advice}");
    text
}

/// The database server, and how to connect to it.
#[derive(Clone)]
pub struct PgServer {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    query_timeout: Duration,
}

impl std::fmt::Debug for PgServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("at", &self.at()).finish_non_exhaustive()
    }
}

impl PgServer {
    /// Prepares TLS; connects to nothing yet.
    ///
    /// # Errors
    /// The authority's file cannot be read.
    pub fn new(
        config: tokio_postgres::Config,
        trust: TlsTrust,
        root_cert: Option<&Path>,
        query_timeout: Duration,
    ) -> Result<Self, PgError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = PgCertVerifier::new(&provider, trust, root_cert)?;
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PgError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { config, tls: MakeRustlsConnect::new(tls), query_timeout })
    }

    /// Host, port and database.
    pub fn at(&self) -> String {
        use tokio_postgres::config::Host;
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }

    /// Connects without notifications.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the login.
    pub async fn connect(&self) -> Result<Client, PgError> {
        self.connect_listening(None).await
    }

    /// Connects. The payloads of notifications go to `notifications`, which is closed when the
    /// connection ends.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the login.
    pub async fn connect_listening(
        &self,
        notifications: Option<UnboundedSender<String>>,
    ) -> Result<Client, PgError> {
        let fault = |why: String| PgError::Connect { at: self.at(), why };
        let wait = Duration::from_secs(REGISTRY_CONNECT_TIMEOUT_S);
        let (client, mut connection) = tokio::time::timeout(wait, self.config.connect(self.tls.clone()))
            .await
            .map_err(|_| fault(format!("no answer within {} s", wait.as_secs())))?
            .map_err(|error| fault(words(&error)))?;
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let (AsyncMessage::Notification(notification), Some(notifications)) =
                    (message, &notifications)
                {
                    let _ = notifications.send(notification.payload().to_owned());
                }
            }
        });
        // The lock's timeout is shorter, so that a locked table and a slow query give different errors.
        let ms = self.query_timeout.as_millis();
        let set = format!("SET statement_timeout = {ms}; SET lock_timeout = {}", (ms * 4 / 5).max(1));
        self.within("SET", client.batch_execute(&set)).await?;
        Ok(client)
    }

    /// Waits for an answer. The server ends its own queries; a silent server is given up half a
    /// timeout later.
    ///
    /// # Errors
    /// The server's error, or its silence.
    pub async fn within<T>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PgError> {
        let wait = self.query_timeout + self.query_timeout / 2;
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(PgError::query(doing, &error)),
            Err(_) => Err(PgError::Silent { doing, ms: wait.as_millis() }),
        }
    }
}

/// Verifies certificates as `sslmode` asks.
#[derive(Debug)]
struct PgCertVerifier {
    provider: Arc<CryptoProvider>,
    trust: TlsTrust,
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl PgCertVerifier {
    fn new(
        provider: &Arc<CryptoProvider>,
        trust: TlsTrust,
        root_cert: Option<&Path>,
    ) -> Result<Self, PgError> {
        let mut verifier = Self { provider: provider.clone(), trust, authority: None };
        if trust == TlsTrust::Anybody {
            return Ok(verifier);
        }
        let mut roots = RootCertStore::empty();
        match root_cert {
            Some(path) => {
                let fault = |error| PgError::RootCert { path: path.to_owned(), error };
                for certificate in CertificateDer::pem_file_iter(path).map_err(fault)? {
                    roots
                        .add(certificate.map_err(fault)?)
                        .map_err(|error| PgError::Tls(error.to_string()))?;
                }
            }
            None => {
                let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        verifier.authority = Some(built.map_err(|error| PgError::Tls(error.to_string()))?);
        Ok(verifier)
    }
}

impl ServerCertVerifier for PgCertVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        let checked =
            authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The chain was verified before the name is compared.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.trust == TlsTrust::Authority => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! The HTTP client of verbs towards the gateway of the configuration. Where that speaks TLS, the client
//! trusts the very certificate that `admin.cert_file` names and no other.

use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::config::Config;

/// The beginning of URLs: `http://address` or `https://address`.
pub fn base(config: &Config) -> String {
    let scheme = if config.admin.cert_file.is_empty() { "http" } else { "https" };
    format!("{scheme}://{}", config.admin.listen)
}

/// A client for URLs that begin so.
///
/// # Errors
/// The certificate's file cannot be read.
pub fn client(config: &Config) -> anyhow::Result<reqwest::ClientBuilder> {
    let builder = reqwest::Client::builder().no_proxy();
    let file = &config.admin.cert_file;
    if file.is_empty() {
        return Ok(builder);
    }
    let certificate = CertificateDer::from_pem_file(file)
        .with_context(|| format!("admin.cert_file = {file:?} cannot be read"))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(SameCertificate { certificate, provider: provider.clone() });
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(builder.tls_backend_preconfigured(tls))
}

/// Accepts one certificate, whatever names it has.
#[derive(Debug)]
struct SameCertificate {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SameCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match *end_entity == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

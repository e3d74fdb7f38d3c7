//! The end of the validity of certificates in a PEM file.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The time at which the first certificate of a file expires. In a chain each one counts.
///
/// # Errors
/// A text that says why the file gives no such time.
pub fn first_expiry(path: &Path) -> Result<SystemTime, String> {
    let mut first: Option<SystemTime> = None;
    for der in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let der = der.map_err(|error| error.to_string())?;
        let certificate = Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let end = certificate.tbs_certificate.validity.not_after.to_system_time();
        first = Some(first.map_or(end, |first| first.min(end)));
    }
    first.ok_or_else(|| "it holds no certificate in PEM form".into())
}

//! The device that a client certificate names, by the common name of its subject, or a DNS name, URI or
//! e-mail address of its subject alternative names. The certificate was verified before.

use std::time::{Duration, SystemTime};

use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use tidegate_core::identity::{Identity, NameTemplate};

/// `id-at-commonName` (RFC 5280 appendix A.1).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The reason for which a certificate names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateNameError {
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the client certificate names no device by listen.certificate_name")]
    Nobody,
    #[error("the client certificate names more than one device")]
    Several,
}

/// The issuer's name (DER) and the serial number of a certificate.
pub type CertificateId = (Vec<u8>, Vec<u8>);

/// A verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The device that it names, or the reason for which it names none.
    pub identity: Result<Identity, String>,
    pub not_after: SystemTime,
    pub id: CertificateId,
}

impl ClientCertificate {
    /// Reads a certificate (DER). One that cannot be read names nobody and has expired.
    pub fn read(der: &[u8], template: &NameTemplate) -> Self {
        let identity = identity(der, template).map_err(|why| why.to_string());
        let fields = Certificate::from_der(der).ok().map(|certificate| certificate.tbs_certificate);
        let not_after =
            fields.as_ref().map_or(Duration::ZERO, |fields| fields.validity.not_after.to_unix_duration());
        let id = fields.and_then(|fields| {
            Some((fields.issuer.to_der().ok()?, fields.serial_number.as_bytes().to_vec()))
        });
        Self { identity, not_after: SystemTime::UNIX_EPOCH + not_after, id: id.unwrap_or_default() }
    }
}

/// The end of a certificate's validity (DER); None if it cannot be read.
pub fn not_after(der: &[u8]) -> Option<SystemTime> {
    let certificate = Certificate::from_der(der).ok()?;
    Some(SystemTime::UNIX_EPOCH + certificate.tbs_certificate.validity.not_after.to_unix_duration())
}

/// The certificates that a list of an authority (DER) revokes.
///
/// # Errors
/// It is no such list.
pub fn revoked(der: &[u8]) -> Result<Vec<CertificateId>, x509_cert::der::Error> {
    let list = CertificateList::from_der(der)?.tbs_cert_list;
    let issuer = list.issuer.to_der()?;
    let entries = list.revoked_certificates.unwrap_or_default();
    Ok(entries.iter().map(|one| (issuer.clone(), one.serial_number.as_bytes().to_vec())).collect())
}

/// The one device that a certificate (DER) names.
///
/// # Errors
/// It names none, or several.
pub fn identity(der: &[u8], template: &NameTemplate) -> Result<Identity, CertificateNameError> {
    let named = names(der).map_err(|error| CertificateNameError::Unreadable(error.to_string()))?;
    let mut found: Option<Identity> = None;
    for identity in named.iter().filter_map(|name| template.read(name)) {
        match &found {
            Some(other) if *other != identity => return Err(CertificateNameError::Several),
            _ => found = Some(identity),
        }
    }
    found.ok_or(CertificateNameError::Nobody)
}

fn names(der: &[u8]) -> Result<Vec<String>, x509_cert::der::Error> {
    let certificate = Certificate::from_der(der)?.tbs_certificate;
    let mut names = Vec::new();
    for attribute in certificate.subject.0.iter().flat_map(|part| part.0.iter()) {
        if attribute.oid != COMMON_NAME {
            continue;
        }
        let value = &attribute.value;
        // Other kinds of string are not written any more (RFC 5280 section 4.1.2.6).
        let text = value
            .decode_as::<Utf8StringRef<'_>>()
            .map(|text| text.as_str().to_owned())
            .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
            .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()));
        names.extend(text.ok());
    }
    if let Some((_, alternatives)) = certificate.get::<SubjectAltName>()? {
        for name in alternatives.0 {
            match name {
                GeneralName::DnsName(text)
                | GeneralName::UniformResourceIdentifier(text)
                | GeneralName::Rfc822Name(text) => names.push(text.as_str().to_owned()),
                _ => {}
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use tidegate_core::identity::NameTemplate;

    fn certificate(common_name: Option<&str>, alternatives: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = alternatives;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn read(template: &str, der: &[u8]) -> Result<String, CertificateNameError> {
        identity(der, &NameTemplate::parse(template).unwrap()).map(|identity| identity.to_string())
    }

    #[test]
    fn the_common_name_or_an_alternative_name_says_who() {
        let template = "{tenant}/{device}";
        assert_eq!(read(template, &certificate(Some("acme/dev-1"), vec![])), Ok("acme/dev-1".into()));
        assert_eq!(read(template, &certificate(None, vec![uri("acme/dev-1")])), Ok("acme/dev-1".into()));
        let both = certificate(Some("acme/dev-1"), vec![uri("acme/dev-1"), uri("something else")]);
        assert_eq!(read(template, &both), Ok("acme/dev-1".into()));
        let dns = certificate(Some("a pump"), vec![SanType::DnsName("dev-1.acme.iot".try_into().unwrap())]);
        assert_eq!(read("{device}.{tenant}.iot", &dns), Ok("acme/dev-1".into()));
        let spiffe = certificate(None, vec![uri("spiffe://iot/acme/d/dev-1")]);
        assert_eq!(read("spiffe://iot/{tenant}/d/{device}", &spiffe), Ok("acme/dev-1".into()));
    }

    #[test]
    fn a_certificate_of_nobody_or_of_two_is_nobodys() {
        let template = "{tenant}/{device}";
        assert_eq!(read(template, &certificate(Some("dev-1"), vec![])), Err(CertificateNameError::Nobody));
        assert_eq!(read(template, &certificate(None, vec![])), Err(CertificateNameError::Nobody));
        let two = certificate(Some("acme/dev-1"), vec![uri("acme/dev-2")]);
        assert_eq!(read(template, &two), Err(CertificateNameError::Several));
        assert!(matches!(read(template, b"rubbish"), Err(CertificateNameError::Unreadable(_))));
    }
}

//! A configuration over HTTP: whole or not at all, within a size and a time.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, IF_NONE_MATCH, LOCATION,
    TRANSFER_ENCODING,
};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

use crate::config;
use crate::config::ConfigError;
use crate::config::remote::origin::{CA_FILE, TOKEN_FILE};
use crate::config::remote::version::ConfigVersion;
use crate::config::source::Environment;
use crate::limits::{CONFIG_BYTES_MAX, CONFIG_CONNECT_TIMEOUT_S, CONFIG_FETCH_TIMEOUT_S};

/// The reason that no version came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer: {0}")]
    Silent(String),
    #[error("the answer is {status}, expected 200{more}")]
    Status { status: StatusCode, more: String },
    #[error("it is larger than {CONFIG_BYTES_MAX} bytes")]
    Large,
    #[error(
        "the answer has neither Content-Length nor Transfer-Encoding: chunked, so that a half one could not be told from a whole one"
    )]
    Endless,
    #[error("it came in part: {0}")]
    Half(String),
    #[error("its bytes are not those of the digest in the header {0}")]
    Digest(&'static str),
    #[error("it has the Content-Encoding {0:?}, and none was asked for")]
    Encoded(String),
    #[error("it is no text in UTF-8")]
    Binary,
    #[error("it is empty")]
    Empty,
}

/// The answer of an address.
#[derive(Debug)]
pub(super) enum Fetched {
    New(ConfigVersion),
    /// One of the versions that are known: its ETag.
    Known(String),
}

/// An address, with what is shown to it and what it must show.
#[derive(Debug)]
pub(super) struct ConfigFetcher {
    url: Url,
    client: Client,
    token: String,
}

impl ConfigFetcher {
    /// Prepares the client; asks nothing yet.
    ///
    /// # Errors
    /// A file that a variable names cannot be read.
    pub fn new(url: Url, environment: &Environment) -> Result<Self, ConfigError> {
        let file = |variable: &str| environment.get(variable).map_or("", String::as_str);
        let token =
            config::secret("TIDEGATE_CONFIG_TOKEN", "", file(TOKEN_FILE)).map_err(|error| match error {
                ConfigError::Value { value, expected, .. } => {
                    ConfigError::Variable { variable: TOKEN_FILE.into(), value, expected }
                }
                other => other,
            })?;
        let builder = Client::builder()
            // Its bearer token is for nobody else.
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(CONFIG_CONNECT_TIMEOUT_S))
            .timeout(Duration::from_secs(CONFIG_FETCH_TIMEOUT_S));
        // On this machine itself nobody is in between, and a proxy elsewhere must not see the token.
        let builder = if url.scheme() == "http" { builder.no_proxy() } else { builder };
        let builder = match file(CA_FILE) {
            "" => builder,
            file => builder.tls_backend_preconfigured(trust(file)?),
        };
        let client =
            builder.build().map_err(|error| ConfigError::value("--config", url.as_str(), causes(&error)))?;
        Ok(Self { url, client, token })
    }

    /// Asks for a version other than those whose ETags are `known`.
    ///
    /// # Errors
    /// No version came, or not all of it.
    pub async fn fetch(&self, known: &[&str]) -> Result<Fetched, FetchError> {
        let mut request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, "identity");
        if !known.is_empty() {
            request = request.header(IF_NONE_MATCH, known.join(", "));
        }
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        let mut answer = request.send().await.map_err(|error| FetchError::Silent(causes(&error)))?;
        let text_of = |headers: &HeaderMap, name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let tag = text_of(answer.headers(), ETAG);
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if !known.is_empty() => {
                let only = if known.len() == 1 { known[0].to_owned() } else { tag };
                if known.contains(&only.as_str()) {
                    return Ok(Fetched::Known(only));
                }
                let more =
                    ": a 304 without the ETag of one of the versions that were asked about (RFC 9110)".into();
                return Err(FetchError::Status { status: StatusCode::NOT_MODIFIED, more });
            }
            status => {
                let more = match text_of(answer.headers(), LOCATION) {
                    to if status.is_redirection() && !to.is_empty() => {
                        format!("; redirections are not followed, name the address {to:?} itself")
                    }
                    _ => String::new(),
                };
                return Err(FetchError::Status { status, more });
            }
        }
        let encoding = text_of(answer.headers(), CONTENT_ENCODING);
        if !matches!(encoding.as_str(), "" | "identity") {
            return Err(FetchError::Encoded(encoding));
        }
        let is_chunked =
            text_of(answer.headers(), TRANSFER_ENCODING).to_ascii_lowercase().contains("chunked");
        if !is_chunked && !answer.headers().contains_key(CONTENT_LENGTH) {
            return Err(FetchError::Endless);
        }
        let mut bytes = Vec::new();
        while let Some(more) = answer.chunk().await.map_err(|error| FetchError::Half(causes(&error)))? {
            if bytes.len() + more.len() > CONFIG_BYTES_MAX {
                return Err(FetchError::Large);
            }
            bytes.extend_from_slice(&more);
        }
        for name in ["content-digest", "repr-digest"] {
            let fields = answer.headers().get_all(name);
            if !fields.iter().all(|field| field.to_str().is_ok_and(|field| is_digest_of(field, &bytes))) {
                return Err(FetchError::Digest(name));
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| FetchError::Binary)?;
        if text.trim().is_empty() {
            return Err(FetchError::Empty);
        }
        Ok(Fetched::New(ConfigVersion::new(text, tag)))
    }
}

/// False if a digest field (RFC 9530) has a SHA-256, `sha-256=:BASE64:`, that is not the one of these bytes, or is
/// none. Other digests are not looked at.
fn is_digest_of(field: &str, bytes: &[u8]) -> bool {
    field.split(',').filter_map(|part| part.split_once('=')).all(|(name, value)| {
        let encoded = value.trim().strip_prefix(':').and_then(|value| value.strip_suffix(':'));
        !name.trim().eq_ignore_ascii_case("sha-256")
            || encoded
                .and_then(|encoded| STANDARD.decode(encoded).ok())
                .is_some_and(|digest| digest == Sha256::digest(bytes)[..])
    })
}

/// TLS that trusts the authorities of a file, and no other.
fn trust(file: &str) -> Result<ClientConfig, ConfigError> {
    let refuse = |why: String| ConfigError::Variable {
        variable: CA_FILE.into(),
        value: file.into(),
        expected: format!("expected a PEM file with certificates of authorities: {why}"),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(error.to_string()))? {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("it has none".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| refuse(error.to_string()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// An error with what caused it, without the address, which is said beside it.
fn causes(error: &reqwest::Error) -> String {
    let mut text = Vec::new();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push(deeper.to_string());
        cause = deeper.source();
    }
    match (text.is_empty(), error.is_timeout()) {
        (_, true) => format!("not whole within {CONFIG_FETCH_TIMEOUT_S} s"),
        (true, false) => error.to_string(),
        (false, false) => text.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_found_in_a_field_of_several_and_must_be_that_of_the_bytes() {
        let right = STANDARD.encode(Sha256::digest("a"));
        for good in [&format!("unixsum=:AAA=:, sha-256=:{right}:"), "", "md5=:AAAA:", "sha-512=:AAAA:"] {
            assert!(is_digest_of(good, b"a"), "{good}");
        }
        for bad in [
            format!("sha-256=:{right}:, sha-256=:AAAA:"),
            format!("sha-256={right}"),
            "sha-256=:!!!:".into(),
            "sha-256 =:AAAA:".into(),
            "SHA-256=:AAAA:".into(),
        ] {
            assert!(!is_digest_of(&bad, b"a"), "{bad}");
        }
    }
}

use std::path::PathBuf;
use std::time::Duration;

use crate::backoff::BackoffLimits;

/// The write protocol that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    InfluxDb3,
    InfluxDb2,
    InfluxDb1,
}

/// When bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gzip {
    /// Unless the server is on this machine.
    Auto,
    Always,
    Never,
}

/// A server that lines are posted to.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpSettings {
    pub kind: ServerKind,
    /// `http://` or `https://`, without query.
    pub url: String,
    /// Of InfluxDB 3 and 2; empty: none is sent.
    pub token: String,
    /// Of InfluxDB 2.
    pub org: String,
    /// Of InfluxDB 1; empty: no credentials are sent.
    pub username: String,
    pub password: String,
    pub gzip: Gzip,
    pub request_timeout: Duration,
}

/// Where lines go.
#[derive(Clone)]
pub enum OutputSettings {
    Http(HttpSettings),
    /// `{path}/{database}/{YYYY-MM-DDTHH}.lp`
    File {
        path: PathBuf,
    },
}

/// How the writer works.
#[derive(Clone)]
pub struct WriterSettings {
    pub output: OutputSettings,
    /// Lines in a request; at least 1.
    pub batch_lines: u32,
    /// The longest time that a line waits for others.
    pub flush_interval: Duration,
    /// Lines in a request while catching up; at least `batch_lines`.
    pub batch_lines_max: u32,
    /// Requests under way to one database, at least 1.
    pub requests_max: u32,
    pub waits: BackoffLimits,
}

/// The writer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("output.url {url:?} cannot be used: {why}")]
    Url { url: String, why: String },
    #[error(
        "output.token, output.username or output.password has a character that an HTTP header cannot contain"
    )]
    Credential,
    #[error("the HTTP client cannot start: {0}")]
    Client(String),
}

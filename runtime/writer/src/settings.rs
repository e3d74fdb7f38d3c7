//! Settings of the writer, as the configuration gives them.

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

/// The choice of bodies that are compressed.
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
    /// For InfluxDB 3 and 2; empty: none is sent.
    pub token: String,
    /// For InfluxDB 2.
    pub org: String,
    /// For InfluxDB 1; empty: no credentials are sent.
    pub username: String,
    pub password: String,
    pub gzip: Gzip,
    pub request_timeout: Duration,
    /// For InfluxDB 1: a database that is missing is created.
    pub create_database: bool,
}

/// The destination of lines.
#[derive(Clone)]
pub enum OutputSettings {
    Http(HttpSettings),
    /// `{path}/{database}/{YYYY-MM-DDTHH}.lp`
    File {
        path: PathBuf,
    },
}

#[derive(Clone)]
pub struct WriterSettings {
    pub output: OutputSettings,
    /// Lines in a request; at least 1.
    pub batch_lines: u32,
    /// The longest time that a line waits for others.
    pub flush_interval: Duration,
    /// The longest time that it waits while the gateway is short of CPU; at least `flush_interval`.
    pub flush_interval_max: Duration,
    /// Lines in a request while catching up; at least `batch_lines`.
    pub batch_lines_max: u32,
    /// Requests under way to one database, at least 1.
    pub requests_max: u32,
    pub waits: BackoffLimits,
    /// Bytes of lines in hand, of all databases together.
    pub memory_bytes_max: usize,
}

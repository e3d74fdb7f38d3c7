//! Lines to the database: a backlog and a retry clock a database, as many requests under way as its
//! backlog needs.
//!
//! - Lines of one device are written in the order in which they came: no two requests under way
//!   carry lines of one device. Databases are written beside each other and never wait for one
//!   another's troubles.
//! - Nothing is given up because a database is slow, down or misconfigured. Only lines that the
//!   database refuses one by one leave for quarantine.
//! - Lines are durable before they come here, so what waits here can be given back to its store
//!   at any time, and is when its database is in trouble.
//!
//! The decisions are pure (`batcher`, `window`, `verdict`, `work`, `backoff`, joined by `lane`);
//! `database` does what they say.

pub(crate) mod thread;
mod stats;
mod pending_lines;
mod backlog;
mod concurrency_limit;
mod verdict;
mod batch;
mod write_queue;
mod http1_client;
mod endpoint;
mod output;
mod file_output;
mod ease;
mod flush_timer;
mod database_task;
#[cfg(test)]
mod testing;
pub mod limits;
pub(crate) mod settings;
pub(crate) mod context;
pub(crate) mod handle;
pub(crate) mod circuit_breaker;

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::tenant::settings::OutputId;
use crate::writer::output::Output;

pub use crate::core::backoff::BackoffLimits;
pub use crate::writer::context::WriterParts;
pub use crate::writer::ease::Ease;
pub use crate::writer::handle::Writer;
pub use crate::writer::pending_lines::RefusedLinesSink;
pub use crate::writer::settings::Gzip;
pub use crate::writer::settings::HttpSettings;
pub use crate::writer::settings::OutputSettings;
pub use crate::writer::settings::ServerKind;
pub use crate::writer::settings::WriterError;
pub use crate::writer::settings::WriterSettings;
pub use crate::writer::stats::DatabaseStatus;
pub use crate::writer::stats::UndrainedDatabases;
pub use crate::writer::stats::WriteObserver;
pub use crate::writer::stats::WriterStats;

/// The outputs of tenants whose lines do not go the common way.
#[derive(Clone, Default)]
pub(crate) struct Outputs {
    ways: HashMap<OutputId, Arc<Output>>,
    /// How many were ever opened.
    opened: u64,
}

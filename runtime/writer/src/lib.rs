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

pub mod thread;
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
mod backoff;
pub mod limits;
pub(crate) mod settings;
pub(crate) mod context;
pub(crate) mod handle;
pub(crate) mod circuit_breaker;

use std::collections::HashMap;
use std::sync::Arc;

use crate::output::Output;
use tidegate_core::tenant::settings::OutputId;

pub use crate::backoff::BackoffLimits;
pub use crate::context::WriterParts;
pub use crate::ease::Ease;
pub use crate::handle::Writer;
pub use crate::pending_lines::RefusedLinesSink;
pub use crate::settings::Gzip;
pub use crate::settings::HttpSettings;
pub use crate::settings::OutputSettings;
pub use crate::settings::ServerKind;
pub use crate::settings::WriterError;
pub use crate::settings::WriterSettings;
pub use crate::stats::DatabaseStatus;
pub use crate::stats::UndrainedDatabases;
pub use crate::stats::WriteObserver;
pub use crate::stats::WriterStats;

/// The outputs of tenants whose lines do not go the common way.
#[derive(Clone, Default)]
pub(crate) struct Outputs {
    ways: HashMap<OutputId, Arc<Output>>,
    /// How many were ever opened.
    opened: u64,
}

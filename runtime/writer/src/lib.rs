//! Lines to databases: a backlog and a retry clock for each database, and as many requests under way
//! as its backlog needs.
//!
//! - Lines of one device are written in the order in which they came: no two requests under way
//!   carry lines of one device. Databases are written beside each other and never wait for one
//!   another's troubles.
//! - Nothing is given up because a database is slow, down or misconfigured. Only lines that the
//!   database refuses one by one leave for quarantine.
//! - Lines are durable before they come here. They can be returned to their store at any time, and
//!   are when their database is in trouble.
//!
//! The decisions are pure (`backlog`, `batch`, `verdict`, `concurrency_limit`, `backoff`, joined by
//! `write_queue`); `database_task` carries them out.

pub mod limits;
mod settings;
mod error;
mod handle;
mod context;
pub mod thread;
mod database_task;
mod flush_delay;
mod cpu_wait;
mod flush_pacer;
mod flush_timer;
mod write_queue;
mod backlog;
mod lines_budget;
mod pending_lines;
mod delayed_lines;
mod batch;
mod verdict;
mod concurrency_limit;
mod backoff;
mod body_limit;
mod server_version;
mod server_watch;
mod output;
mod circuit_breaker;
mod endpoint;
mod http1_client;
mod file_output;
mod rare_log;
mod stats;
#[cfg(test)]
mod testing;

pub use crate::backoff::BackoffLimits;
pub use crate::context::WriterParts;
pub use crate::error::WriterError;
pub use crate::handle::Writer;
pub use crate::pending_lines::RefusedLinesSink;
pub use crate::server_version::ServerInfo;
pub use crate::settings::{Gzip, HttpSettings, OutputSettings, ServerKind, WriterSettings};
pub use crate::stats::{DatabaseHealth, DatabaseStatus, UndrainedDatabases, WriteObserver, WriterStats};

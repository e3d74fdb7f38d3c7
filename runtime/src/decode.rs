//! Decoders: WebAssembly components that tenants ship, run where they can hurt nobody.
//!
//! - Each call is bounded in CPU time, memory, tables, stack, output and host calls. A guest has no
//!   clock, no randomness, no network and no files.
//! - An instance serves one tenant and one route on one thread. Any fault drops it; the batch is
//!   then decoded message by message, and only the messages that fail alone are refused.
//! - The folder is the routing table (`routes`, `folder`); what changes in it is judged before it may
//!   serve (`store`), and decode threads take up the new table between two batches.
//! - What a guest sets in its state goes on with the lines of its message, and goes with them if the
//!   message is refused (`state`).
//! - Faults of ours (the pool is full, the host is out of memory) never blame a guest.

pub mod engine;
pub mod abi;
pub mod compile;
pub mod guest;
pub mod large;
pub mod sandbox;
pub mod route_file;
pub mod routes;
pub mod folder;
pub mod history;
pub mod store;
pub mod loader;
pub mod probation;
pub mod recent;
pub mod shadow;
pub mod guest_log;
pub mod partition;
pub mod state;
pub mod instance;
pub mod decoder;
pub mod shares;
pub mod turns;
pub mod slow;
mod together;
pub mod pool;

use std::sync::Arc;

use crate::domain::books::Account;
use crate::domain::line::Dialect;
use crate::domain::message::{CheckedBatch, Refused};
use crate::domain::slot::Slot;

pub use compile::CompilerSettings;
pub use decoder::Decoder;
pub use guest::GuestError;
pub use large::{Class, LargeSettings};
pub use pool::DecodePool;
pub use shares::CpuShares;
pub use state::StateStore;
pub use store::{Change, GuestInfo, GuestStore, Keeping, RunCases};

/// What every guest may use; a route file may only lower it, and only the operator grants more.
#[derive(Clone, Debug)]
pub struct DecodeSettings {
    /// OS threads; at least 1.
    pub threads: usize,
    /// CPU time a message, in milliseconds.
    pub deadline_ms: u64,
    /// Linear memory of one instance, in bytes.
    pub memory_bytes_max: u64,
    /// The largest component, in bytes.
    pub component_bytes_max: u64,
    /// What the database takes.
    pub dialect: Dialect,
    pub compiler: CompilerSettings,
    /// What the operator grants beyond that; None: nothing to nobody.
    pub large: Option<LargeSettings>,
}

/// Where decoded messages go. Called on decode threads; must not block.
pub trait DecodeSink {
    /// Lines that may stand beside others, and what a route that keeps state leaves with them, be it
    /// without lines.
    fn lines(&self, batch: CheckedBatch);
    /// Several such batches, in their order.
    fn lines_of_many(&self, batches: Vec<CheckedBatch>) {
        batches.into_iter().for_each(|batch| self.lines(batch));
    }
    /// What was kept to go on together goes on now: what comes behind it goes another way.
    fn hand_on(&self) {}
    /// Messages that no line was made of, on purpose, of a route that keeps no state.
    fn empty(&self, messages: Vec<Slot>, account: &Arc<Account>);
    /// Messages for quarantine.
    fn refused(&self, messages: Vec<Refused>);
}

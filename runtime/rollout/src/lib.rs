//! Rollout: how a version of a decoder comes into service, and out of it.
//!
//! - A file that changes is evaluated off the data path (`worker`), one at a time: compiled in a child
//!   process, started once, run on its cases and on the route's last messages. Until it has passed,
//!   the version before it serves; the routing table is replaced whole.
//! - Each decision is in `history` before it holds: a version that was refused or rolled back is
//!   not tried again until its file changes, over restarts too, and at start the last good one
//!   serves if the folder holds nothing better.
//! - A new version is on probation over the one before it, which comes back by itself.

pub mod line_changes;
pub mod comparison;
pub mod error;
pub mod digest;
pub mod builtin;
pub mod definition;
pub mod tenant_folder;
mod script_files;
pub mod folder;
pub mod route_file;
mod lone_route_files;
mod confine;
pub mod compile;
pub mod expected_version;
pub mod put_request;
pub mod candidate;
pub mod history;
mod tenant_limits;
pub mod queue;
mod penalties;
mod disk_use;
pub mod store;
mod scan;
mod evaluate;
mod trial_run;
mod activate;
mod rollback;
mod tenant_quota;
mod put;
mod reload;
mod listing;
mod route_texts;
mod worker;
pub mod limits;

pub use crate::compile::CompileLimits;
pub use crate::compile::CompilerSettings;
pub use crate::error::RolloutError;
pub use crate::expected_version::ExpectedVersion;
pub use crate::listing::GuestInfo;
pub use crate::listing::ProbationInfo;
pub use crate::put_request::{PutAuthor, PutFile, PutRequest, PutResult, Trial};
pub use crate::rollback::RollbackResult;
pub use crate::route_texts::RouteTexts;
pub use crate::script_files::{ENTRIES, pack};
pub use crate::store::CaseRunner;
pub use crate::store::GuestStore;
pub use crate::store::Persistence;
pub use crate::store::RolloutEvent;
pub use crate::tenant_limits::TenantLimits;

//! Answers of paths that are older than the OpenAPI document, for the document alone. A test holds the answers against
//! them: a member that is missing here is found.

// None of them is made: they are read by the macros of the document.
#![allow(dead_code)]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// The answer to a call that did nothing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiErrorBody {
    /// A code that does not change.
    pub error: String,
    /// The reason in words.
    pub message: String,
}

/// The number of databases that are tried now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RetryResult {
    pub databases: u64,
}

/// Use of memory or disk.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetUse {
    pub used: u64,
    pub max: u64,
    /// By kind, where one tenant is asked about.
    pub kinds: Option<BTreeMap<String, BudgetKindUse>>,
    /// The ceiling of the whole process; of the gateway alone.
    pub process_max: Option<u64>,
    /// Bytes that are kept for other purposes; of the gateway alone.
    pub reserved: Option<BTreeMap<String, u64>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetKindUse {
    pub used: u64,
    pub max: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetPairUse {
    pub memory: BudgetUse,
    pub disk: BudgetUse,
}

/// Tenants with their budgets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantList {
    /// Absent for a tenant.
    pub gateway: Option<BudgetPairUse>,
    pub tenants: BTreeMap<String, BudgetPairUse>,
}

/// One tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantDetail {
    pub tenant: String,
    pub memory: BudgetUse,
    pub disk: BudgetUse,
    pub books: Option<TenantBooksBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageBooksBody {
    pub received: u64,
    pub lines: u64,
    pub empty: u64,
    pub quarantined: u64,
    pub dropped: u64,
    pub abandoned: u64,
    pub parked: u64,
    pub in_flight: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineBooksBody {
    pub spooled: u64,
    pub written: u64,
    pub refused: u64,
    pub dropped: u64,
    pub damaged: u64,
    pub pending: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuarantineBooksBody {
    pub entries: u64,
    pub expired: u64,
    pub replayed: u64,
    pub removed: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantBooksBody {
    pub messages: MessageBooksBody,
    pub lines: LineBooksBody,
    pub quarantine: QuarantineBooksBody,
    /// In the answer of `/api/v1/books`.
    pub dropped_by_reason: Option<BTreeMap<String, u64>>,
}

/// The books: every message and every line is somewhere.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BooksBody {
    pub balanced: bool,
    pub tenants: BTreeMap<String, TenantBooksBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProbationBody {
    pub messages: u64,
    pub failures: u64,
}

/// A decoder and the version that serves.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GuestBody {
    pub tenant: String,
    #[serde(rename = "type")]
    pub message_type: String,
    pub file: String,
    /// `serving`, `refused` or `waiting`.
    pub state: String,
    /// `serving`, `refused`, `waiting` or `set_aside`.
    pub file_state: String,
    pub guest: Option<String>,
    pub digest: Option<String>,
    /// The version that serves, with its texts: the value of `expect_version`.
    pub version: Option<String>,
    /// The name of the built-in decoder that serves.
    pub built_in: Option<String>,
    pub interface: Option<String>,
    pub keeps_state: bool,
    pub error: Option<String>,
    pub probation: Option<ProbationBody>,
    pub lane: String,
    pub class: String,
    pub messages: u64,
    pub cpu_seconds: f64,
    pub failures: BTreeMap<String, u64>,
    pub ignored: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GuestsBody {
    pub guests: Vec<GuestBody>,
}

/// The texts of a decoder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GuestSourceBody {
    pub tenant: String,
    #[serde(rename = "type")]
    pub message_type: String,
    /// The extension of the file that makes the route: `wasm`, `toml`, or that of a script.
    pub file: String,
    /// The name of the built-in decoder that serves.
    pub built_in: Option<String>,
    /// The version that serves.
    pub version: Option<String>,
    /// Texts by their extensions.
    pub texts: BTreeMap<String, String>,
}

/// A database, its backlog and its writes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatabaseBody {
    pub database: String,
    pub tenant: Option<String>,
    pub lines: u64,
    pub bytes: u64,
    pub oldest_age_ms: u64,
    pub output_of: Option<String>,
    pub lines_in_hand: Option<u64>,
    pub lines_delayed: Option<u64>,
    /// `well`, `retrying` or `paused`.
    pub state: Option<String>,
    pub trouble_s: Option<u64>,
    pub requests: Option<u64>,
    pub window: Option<u64>,
    pub last_answer: Option<String>,
    pub failures: Option<u64>,
    pub next_try_ms: Option<u64>,
}

/// The spool and its databases. A tenant sees its own databases, and itself in `waiting_messages` and `parked`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SpoolBody {
    pub databases: Vec<DatabaseBody>,
    /// Messages that wait for room, by tenant.
    pub waiting_messages: BTreeMap<String, u64>,
    /// Parked messages, by tenant.
    pub parked: BTreeMap<String, ParkedBody>,
    pub bytes: Option<u64>,
    pub live_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub segments: Option<u64>,
    pub lines: Option<u64>,
    pub fault: Option<String>,
    pub messages_unsettled: Option<u64>,
    pub bytes_unsettled: Option<u64>,
    pub servers: Option<Vec<ServerBody>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParkedBody {
    pub messages: u64,
    pub bytes: u64,
    pub oldest_age_ms: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerBody {
    pub server: String,
    pub version: String,
    pub caveats: Vec<String>,
}

/// A refused message, or a refused line of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntryBody {
    pub id: String,
    pub time: String,
    pub received_at: String,
    pub reason: String,
    pub detail: String,
    pub topic: String,
    pub tenant: Option<String>,
    pub device: Option<String>,
    #[serde(rename = "type")]
    pub message_type: Option<String>,
    pub site: Option<String>,
    pub via: Option<String>,
    pub guest: Option<String>,
    /// The payload as text, credentials masked; only where it may be seen.
    pub payload: Option<String>,
    pub payload_base64: Option<String>,
    pub payload_bytes: Option<u64>,
    pub truncated: Option<bool>,
    pub database: Option<String>,
    pub line: Option<String>,
    pub answer: Option<String>,
    pub account: Option<String>,
    pub replays: Option<u64>,
    pub replay_of: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuarantineBody {
    /// Absent for a tenant.
    pub bytes: Option<u64>,
    /// Entries by reason, and by tenant.
    pub reasons: BTreeMap<String, u64>,
    pub tenants: BTreeMap<String, u64>,
    /// Absent for a tenant.
    pub refused_since_start: Option<BTreeMap<String, u64>>,
    pub latest: Vec<EntryBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntriesBody {
    pub entries: Vec<EntryBody>,
    /// Entries that match beside those.
    pub more: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RemovedBody {
    pub removed: u64,
    pub left: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SkippedBody {
    pub id: String,
    pub why: String,
}

/// The outcome of a replay.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayBody {
    pub replayed: u64,
    pub lines: u64,
    pub empty: u64,
    pub quarantined_again: u64,
    pub parked: u64,
    pub dropped: u64,
    pub gone: u64,
    pub skipped_count: u64,
    pub skipped: Vec<SkippedBody>,
    pub left: u64,
    pub stopped: bool,
}

//! The settings of one tenant, as the parts of the gateway read them for each group of messages.

use crate::ids::DatabaseName;
use crate::line_protocol::rules::LineRules;
use crate::tenant::rates::DeviceRate;
use crate::token_bucket::Rate;

/// The settings of one tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantSettings {
    /// The database of its lines; `Err` gives the reason why none can be written.
    pub database: Result<DatabaseName, String>,
    /// `None`: no rules beyond those of every tenant.
    pub lines: Option<LineRules>,
    pub device_rate: DeviceRate,
    /// The rate of all its devices together; `None`: no limit.
    pub tenant_rate: Option<Rate>,
    pub spool: SpoolShare,
    /// The part of the decode threads' CPU time, above 0 to 1; `None`: an even one.
    pub cpu_share: Option<f64>,
    /// `None`: the common output.
    pub output: Option<OutputId>,
}

impl TenantSettings {
    /// Lines as they are, to a database.
    pub fn plain(database: Result<DatabaseName, String>) -> Self {
        Self {
            database,
            lines: None,
            device_rate: DeviceRate::default(),
            tenant_rate: None,
            spool: SpoolShare::default(),
            cpu_share: None,
            output: None,
        }
    }
}

/// Behaviour of a share of the spool that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Its messages wait unacknowledged; nothing is lost.
    Block,
    /// The oldest lines go, counted.
    DropOldest,
}

/// A tenant's share of the spool, where it differs from the common one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolShare {
    /// Bytes on disk.
    pub bytes_max: Option<u64>,
    pub when_full: Option<WhenFull>,
}

/// An output that is not the common one, by the number that the writer gave it. Tenants whose lines go
/// to one server with the same credentials have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputId(u64);

impl OutputId {
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

//! Lines that the database refused one by one, on their way to quarantine.

use std::fmt;
use std::sync::Arc;

use crate::books::Account;
use crate::ids::{DatabaseName, GuestTag, TenantId};

/// One line with the database's response to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLine {
    /// The line as it was sent, without its newline.
    pub line: Vec<u8>,
    pub answer: String,
}

/// The refused lines of one message, all of whose other lines are written.
pub struct RefusedLines {
    pub database: DatabaseName,
    pub topic: String,
    pub received_ns: i64,
    pub tenant: TenantId,
    pub guest: GuestTag,
    pub account: Arc<Account>,
    /// At least one.
    pub lines: Vec<RefusedLine>,
    /// Called once the lines are durable in quarantine. If it is dropped uncalled, the message stays
    /// unacknowledged and comes again.
    pub on_durable: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for RefusedLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedLines")
            .field("database", &self.database)
            .field("topic", &self.topic)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

//! The resources that are budgeted, and the kinds of use of each.

use std::fmt;

/// A resource of the machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Memory,
    Disk,
}

impl Resource {
    pub const ALL: [Resource; 2] = [Resource::Memory, Resource::Disk];

    /// The name that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    /// The kinds of use of this resource.
    pub fn kinds(self) -> &'static [BudgetKind] {
        match self {
            Self::Memory => &[
                BudgetKind::Instances,
                BudgetKind::State,
                BudgetKind::Pending,
                BudgetKind::Deferred,
                BudgetKind::Connections,
                BudgetKind::Backlog,
                BudgetKind::Routes,
                BudgetKind::Uploads,
            ],
            Self::Disk => {
                &[BudgetKind::Spool, BudgetKind::Parked, BudgetKind::Quarantine, BudgetKind::Guests]
            }
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind of use of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BudgetKind {
    /// Instances of decoders: linear memory and tables.
    Instances,
    /// Values that decoders keep between messages.
    State,
    /// Messages that wait for the registry.
    Pending,
    /// Batches that wait for room in the spool.
    Deferred,
    /// Unfinished packets of the listener's connections.
    Connections,
    /// Places of frames in the spool, a small part of the frames.
    Backlog,
    /// Copies of messages, and texts of decoders, that are kept for each route.
    Routes,
    /// Decoders that are put and not judged yet.
    Uploads,
    /// Lines in the spool.
    Spool,
    /// Parked messages in the spool.
    Parked,
    /// Refused messages and lines.
    Quarantine,
    /// Files of decoders, with their copies and histories.
    Guests,
}

/// The number of kinds.
pub const KINDS: usize = 12;

impl BudgetKind {
    /// The name that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::State => "state",
            Self::Pending => "pending",
            Self::Deferred => "deferred",
            Self::Connections => "connections",
            Self::Backlog => "backlog",
            Self::Routes => "routes",
            Self::Uploads => "uploads",
            Self::Spool => "spool",
            Self::Parked => "parked",
            Self::Quarantine => "quarantine",
            Self::Guests => "guests",
        }
    }

    /// The part of a tenant's budget that the kind may fill: one in so many. Senders who proved nothing can
    /// name any tenant, so what they cause leaves three quarters of its budget alone.
    pub fn share(self) -> u64 {
        match self {
            Self::Pending | Self::Connections | Self::Uploads | Self::Parked | Self::Quarantine => 4,
            _ => 1,
        }
    }
}

impl fmt::Display for BudgetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! The parts of a tenant's settings that only one part of the gateway works with.

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

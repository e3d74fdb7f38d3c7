//! The parts of a tenant's settings.

/// Behaviour of a share of the spool that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Its messages wait unacknowledged; nothing is lost.
    Block,
    /// The oldest lines go, counted.
    DropOldest,
}

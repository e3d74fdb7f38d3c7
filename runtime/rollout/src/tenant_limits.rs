//! The room that a tenant may take with its own token.

/// The limits of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Files in its folder that are decoders.
    pub decoders_max: usize,
    /// Bytes of its folder, and of the versions that are kept to go back to.
    pub bytes_max: u64,
}

impl TenantLimits {
    /// For verbs that put nothing by a tenant's token.
    pub const NONE: Self = Self { decoders_max: usize::MAX, bytes_max: u64::MAX };
}

//! Proof that bytes are on the disk.

/// Proof that bytes were synced, were read back from the disk, or need no sync by configuration.
#[derive(Clone, Copy, Debug)]
pub struct Synced(());

impl Synced {
    /// Runs a sync.
    ///
    /// # Errors
    /// The errors of `sync`: nothing is durable.
    pub fn after<E>(sync: impl FnOnce() -> Result<(), E>) -> Result<Self, E> {
        sync().map(|()| Self(()))
    }

    /// Proof by bytes that were read back from the disk, if their checksum holds.
    pub fn by_checksum(body: &[u8], crc: u32) -> Option<Self> {
        (crc32c::crc32c(body) == crc).then_some(Self(()))
    }

    /// Proof by a setting without syncs: a power cut may lose the bytes.
    pub fn by_setting_never() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_proof_after_a_sync_that_failed_or_of_other_bytes() {
        assert!(Synced::after(|| Err::<(), _>("EIO")).is_err());
        assert!(Synced::after(|| Ok::<_, ()>(())).is_ok());
        let crc = crc32c::crc32c(b"lines");
        assert!(Synced::by_checksum(b"lines", crc).is_some());
        assert!(Synced::by_checksum(b"linez", crc).is_none());
    }
}

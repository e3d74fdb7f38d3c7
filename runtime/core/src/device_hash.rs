//! The device hash: it spreads devices over decode threads and over the requests of the writer.
//!
//! It stands in the frames of the spool, so it must be the same after a restart: its seed is kept in the
//! data folder. Frames that were hashed with another seed are known by their seed's tag: there the same hash
//! need not mean the same device, nor the same device the same hash.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

/// A hash of a tenant and one of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceHash(u64);

impl DeviceHash {
    /// A key for maps of devices.
    pub fn key(self) -> u64 {
        self.0
    }

    /// One of `parts`, at least 1; always the same for a device.
    pub fn part_of(self, parts: usize) -> usize {
        (self.0 % parts as u64) as usize
    }

    /// The hash as it stands in frames.
    pub fn folded(self) -> u32 {
        (self.0 ^ (self.0 >> 32)) as u32
    }
}

/// Hashes devices with one seed. Without the seed nobody can name devices that share a hash.
#[derive(Clone)]
pub struct DeviceHasher {
    state: SeedableRandomState,
    tag: SeedTag,
}

/// A mark of the seed of a frame: 1 to 31, and 0 for seeds that were never stored. Two seeds may have the
/// same tag, but a second seed exists only if somebody deleted the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedTag(u8);

impl SeedTag {
    /// Bits that it takes.
    const BITS: u32 = 5;

    pub fn new(tag: u8) -> Self {
        Self(tag & ((1 << Self::BITS) - 1))
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

impl DeviceHasher {
    pub fn new(seed: u64) -> Self {
        // One for each process, and it lives as long as that.
        let shared = Box::leak(Box::new(SharedSeed::from_u64(seed)));
        let tag = SeedTag(1 + (seed % ((1 << SeedTag::BITS) - 1)) as u8);
        Self { state: SeedableRandomState::with_seed(seed.rotate_left(32), shared), tag }
    }

    /// One whose hashes are never kept.
    pub fn random() -> Self {
        Self::new(random_seed())
    }

    pub fn hash(&self, tenant: &str, device: &str) -> DeviceHash {
        let mut hasher = self.state.build_hasher();
        hasher.write(tenant.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(device.as_bytes());
        DeviceHash(hasher.finish())
    }

    pub fn tag(&self) -> SeedTag {
        self.tag
    }
}

/// A number that nobody outside can know.
pub fn random_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

impl std::fmt::Debug for DeviceHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash stands on disks: where another version of it gives another, `DeviceHasher::new` must make
    /// another tag of the same seed.
    #[test]
    fn a_seed_gives_the_same_hash_in_every_process() {
        let hasher = DeviceHasher::new(0x1234_5678_9ABC_DEF0);
        let hash = hasher.hash("acme", "dev-1");
        assert_eq!(hash, DeviceHasher::new(0x1234_5678_9ABC_DEF0).hash("acme", "dev-1"));
        assert_eq!(hash.key(), KNOWN);
        assert_ne!(hash, hasher.hash("acme", "dev-2"));
        assert_ne!(hasher.hash("ac", "medev-1"), hash);
        assert_ne!(hash, DeviceHasher::new(0x1234_5678_9ABC_DEF1).hash("acme", "dev-1"));
    }

    const KNOWN: u64 = 7_025_462_525_583_277_020;

    #[test]
    fn a_tag_is_never_that_of_no_seed() {
        for seed in (0..200).chain([u64::MAX, random_seed()]) {
            let tag = DeviceHasher::new(seed).tag();
            assert!((1..32).contains(&tag.get()) && SeedTag::new(tag.get()) == tag);
        }
    }
}

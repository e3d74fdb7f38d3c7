//! The row of a device, and the hash of its token.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The hash of a device's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenHash {
    /// NULL: no token was ever set.
    NotSet,
    /// A text that is no hash, the empty one for example: no token matches.
    Unmatchable,
    Sha256([u8; 32]),
}

impl TokenHash {
    /// Reads the column: lower-case hex of a SHA-256.
    pub fn parse(column: Option<&str>) -> Self {
        let Some(text) = column else { return Self::NotSet };
        let mut hash = [0; 32];
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        if text.len() != 64 {
            return Self::Unmatchable;
        }
        for (place, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => *place = high << 4 | low,
                _ => return Self::Unmatchable,
            }
        }
        Self::Sha256(hash)
    }

    /// True if a token of this hash is the right one; the time does not depend on the hash.
    pub fn matches(&self, hash: &[u8; 32]) -> bool {
        match self {
            Self::Sha256(wanted) => wanted.ct_eq(hash).into(),
            Self::NotSet | Self::Unmatchable => false,
        }
    }
}

/// The registry's column for a token: its SHA-256 in lower-case hex.
pub fn token_hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The row of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRow {
    pub site_id: String,
    pub status: String,
    pub token: TokenHash,
}

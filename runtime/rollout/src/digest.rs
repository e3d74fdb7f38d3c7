//! SHA-256 of components.

use sha2::{Digest, Sha256};

/// A component's digest.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

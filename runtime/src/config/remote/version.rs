//! One version of a configuration, as it came.

use sha2::{Digest, Sha256};

use crate::config::remote::status::VersionName;

/// The text of a configuration, and the names of this version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigVersion {
    pub text: String,
    /// The ETag of an address, as it stands; the commit of a checkout. Empty: there is none.
    pub tag: String,
    /// SHA-256 of the text, in hex.
    pub digest: String,
}

impl ConfigVersion {
    pub fn new(text: String, tag: String) -> Self {
        let digest = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, tag, digest }
    }

    pub fn name(&self) -> VersionName {
        VersionName { tag: self.tag.clone(), digest: self.digest.clone() }
    }
}

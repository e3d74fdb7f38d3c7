//! The state of a configuration from afar, for operators.

use serde::Serialize;
use utoipa::ToSchema;

/// The names of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct VersionName {
    /// The ETag, or the commit.
    pub tag: String,
    /// SHA-256 of its text.
    pub digest: String,
}

/// A version that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedVersion {
    #[serde(flatten)]
    pub version: VersionName,
    pub why: String,
}

/// The state of a configuration from afar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct OriginStatus {
    /// The address, or the folder.
    pub place: String,
    /// The version that holds.
    pub version: VersionName,
    /// It was kept by an earlier run, and the place has not confirmed it since.
    pub from_kept: bool,
    /// The newest version at the place, if it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedVersion>,
    /// The reason that no version could be had at the last look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
}

impl OriginStatus {
    /// The fault that an operator should know, if there is one.
    pub fn fault(&self) -> Option<String> {
        let refused =
            self.refused.as_ref().map(|refused| format!("the newest version is refused: {}", refused.why));
        refused.or_else(|| self.unreachable.clone())
    }
}

//! The reasons for a message without lines: codes that users script against.

use std::fmt;

/// The stage that refused a message; it decides how much of the message quarantine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalStage {
    /// Before authentication: anybody who can publish can cause it.
    Admission,
    /// After admission: the tenant's own device sent it.
    Decode,
    /// The database refused it.
    Write,
    /// Ours to retry; never a refusal.
    Parked,
    /// Dropped on purpose and counted.
    Dropped,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $stage:ident;)*) => {
        /// One code for each way a message can end without lines.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order in which they are looked for.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }

            pub fn stage(self) -> RefusalStage {
                match self { $(Reason::$name => RefusalStage::$stage,)* }
            }

            pub fn from_code(code: &str) -> Option<Reason> {
                match code { $($code => Some(Reason::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", Admission;
    BadTopicFormat = "BAD_TOPIC_FORMAT", Admission;
    /// A device with a proven identity named another one in the topic.
    NotOwnTopic = "NOT_OWN_TOPIC", Admission;
    RateLimited = "RATE_LIMITED", Admission;
    BadPayload = "BAD_PAYLOAD", Admission;
    /// The payload is not as a network server sends it.
    BadEnvelope = "BAD_ENVELOPE", Admission;
    TenantMismatch = "TENANT_MISMATCH_TOPIC_VS_PAYLOAD", Admission;
    MissingSiteId = "MISSING_SITE_ID", Admission;
    UnregisteredDevice = "UNREGISTERED_DEVICE", Admission;
    DeviceRevoked = "DEVICE_REVOKED", Admission;
    SiteMismatch = "SITE_MISMATCH_REGISTRY_VS_PAYLOAD", Admission;
    TokenNotSet = "TOKEN_NOT_SET_IN_REGISTRY", Admission;
    TokenMissing = "TOKEN_MISSING", Admission;
    TokenInvalid = "TOKEN_INVALID", Admission;
    /// The output could never take this database name.
    BadDatabaseName = "BAD_DATABASE_NAME", Decode;
    NoGuest = "NO_GUEST", Decode;
    /// The route takes the object of a network server's codec, and the message has none.
    NoObject = "NO_OBJECT", Decode;
    GuestRefused = "GUEST_REFUSED", Decode;
    GuestTrap = "GUEST_TRAP", Decode;
    GuestDeadline = "GUEST_DEADLINE", Decode;
    GuestMemory = "GUEST_MEMORY", Decode;
    /// Too much output, or not as the interface says.
    GuestOutput = "GUEST_OUTPUT", Decode;
    BadLine = "BAD_LINE", Decode;
    IdentityInLine = "IDENTITY_IN_LINE", Decode;
    DatabaseRefused = "DATABASE_REFUSED", Write;
    RegistryUnavailable = "REGISTRY_UNAVAILABLE", Parked;
    OverCpuShare = "OVER_CPU_SHARE", Parked;
    /// QoS 0 beyond the window.
    Overload = "OVERLOAD", Dropped;
    Retained = "RETAINED", Dropped;
    SpoolFull = "SPOOL_FULL", Dropped;
    /// Received on the topic of our own refusal messages.
    AnswerTopic = "ANSWER_TOPIC", Dropped;
}

impl Reason {
    /// True if the reason would help a stranger to guess devices or tokens.
    pub fn reveals_identity(self) -> bool {
        matches!(
            self,
            Reason::UnregisteredDevice | Reason::TokenNotSet | Reason::TokenMissing | Reason::TokenInvalid
        )
    }

    /// True if the reason shows that a device of this name exists, or its site. Only a sender with a proven
    /// identity may learn it.
    pub fn shows_a_device(self) -> bool {
        matches!(self, Reason::DeviceRevoked | Reason::SiteMismatch)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_leads_back_to_its_reason() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code("NO_SUCH_CODE"), None);
    }
}

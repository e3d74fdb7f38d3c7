//! The names of the guest interface, in every version that was ever released.

/// The interfaces that a component may import.
pub const OFFERED: [&str; 12] = [
    "tidegate:ingest/types@1.1.0",
    "tidegate:ingest/context@1.1.0",
    "tidegate:ingest/state@1.1.0",
    "tidegate:ingest/log@1.1.0",
    ENVELOPE,
    "tidegate:ingest/types@1.0.0",
    "tidegate:ingest/context@1.0.0",
    "tidegate:ingest/state@1.0.0",
    "tidegate:ingest/log@1.0.0",
    "tidegate:ingest/types@0.1.0",
    "tidegate:ingest/context@0.1.0",
    "tidegate:ingest/log@0.1.0",
];

/// The one that asks about messages, whatever its version; answers are gathered only for guests
/// that import it.
pub const CONTEXT: &str = "tidegate:ingest/context@";

/// The one that keeps values between messages, whatever its version.
pub const STATE: &str = "tidegate:ingest/state@";

/// The one that gives the tapes of JSON payloads; they are gathered only for guests that import it.
pub const ENVELOPE: &str = "tidegate:ingest/envelope@1.1.0";

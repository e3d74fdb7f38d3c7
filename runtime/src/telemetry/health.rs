//! Whether the gateway can do its work now, part by part.

use serde::Serialize;

use crate::admission::registry::Registry;

/// Health in the words of `/readyz`.
pub(crate) fn registry_health(registry: &Registry, fault: Option<&String>) -> PartHealth {
    if let Registry::Postgres(registry) = registry {
        let (ready, why) = registry.health();
        return PartHealth { ready, why };
    }
    // Devices are known as they were last read well: the gateway can do its work.
    match fault {
        None => PartHealth::ready(),
        Some(why) => PartHealth { ready: true, why: Some(why.clone()) },
    }
}

/// One part and why it is not usable, if it is not.
#[derive(Clone, Debug, Serialize)]
pub struct PartHealth {
    pub ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl PartHealth {
    pub fn ready() -> Self {
        Self { ready: true, why: None }
    }

    pub fn not_ready(why: impl Into<String>) -> Self {
        Self { ready: false, why: Some(why.into()) }
    }
}

impl From<Result<(), String>> for PartHealth {
    fn from(health: Result<(), String>) -> Self {
        match health {
            Ok(()) => Self::ready(),
            Err(why) => Self::not_ready(why),
        }
    }
}

/// What `/readyz` answers.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub source: PartHealth,
    pub registry: PartHealth,
    /// What makes acknowledged messages durable: in this version the quarantine store.
    pub spool: PartHealth,
}

impl Readiness {
    pub fn of(source: PartHealth, registry: PartHealth, spool: PartHealth) -> Self {
        let ready = source.ready && registry.ready && spool.ready;
        Self { ready, source, registry, spool }
    }
}

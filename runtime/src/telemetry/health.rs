//! Readiness of the gateway, part by part.

use serde::Serialize;

use crate::admission::registry::Registry;

/// The registry's part of `/readyz`. `fault`: a file registry could not be read again.
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

/// The readiness of one part; `why` may also explain a part that is ready.
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

/// The answer of `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub source: PartHealth,
    pub registry: PartHealth,
    /// Spool and quarantine: a message is acknowledged once one of them has it.
    pub spool: PartHealth,
}

impl Readiness {
    pub fn of(source: PartHealth, registry: PartHealth, spool: PartHealth) -> Self {
        let ready = source.ready && registry.ready && spool.ready;
        Self { ready, source, registry, spool }
    }

    /// The same without its words, which name hosts, files and tenants.
    pub fn without_words(self) -> Self {
        let short = |part: PartHealth| PartHealth { why: None, ..part };
        let Self { ready, source, registry, spool } = self;
        Self { ready, source: short(source), registry: short(registry), spool: short(spool) }
    }
}

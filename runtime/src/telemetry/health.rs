//! Readiness of the gateway, part by part.

use serde::Serialize;

use crate::admission::registry::Registry;

/// The registry's part of `/readyz`. `fault`: a file registry could not be read again.
pub(crate) fn registry_health(registry: &Registry, fault: Option<&String>) -> PartHealth {
    if let Registry::Postgres(registry) = registry {
        let (ready, why) = registry.health();
        return PartHealth { ready, degraded: false, why };
    }
    // Devices are known as they were last read well: the gateway can do its work.
    match fault {
        None => PartHealth::ready(),
        Some(why) => PartHealth { ready: true, degraded: false, why: Some(why.clone()) },
    }
}

/// The readiness of one part; `why` may also explain a part that is ready.
#[derive(Clone, Debug, Serialize)]
pub struct PartHealth {
    pub ready: bool,
    /// It does its work, but something needs a person or more time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl PartHealth {
    pub fn ready() -> Self {
        Self { ready: true, degraded: false, why: None }
    }

    pub fn not_ready(why: impl Into<String>) -> Self {
        Self { ready: false, degraded: false, why: Some(why.into()) }
    }

    /// Ready, with what is not as it should be.
    pub fn degraded(why: impl Into<String>) -> Self {
        Self { ready: true, degraded: true, why: Some(why.into()) }
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
    /// The databases. Lines wait in the spool for them, so they never make the gateway unready.
    pub output: PartHealth,
    /// The wall clock, which is never a reason not to be ready.
    pub clock: PartHealth,
}

impl Readiness {
    /// The parts by their names.
    pub fn parts(&self) -> [(&'static str, &PartHealth); 5] {
        [
            ("source", &self.source),
            ("registry", &self.registry),
            ("spool", &self.spool),
            ("output", &self.output),
            ("clock", &self.clock),
        ]
    }

    /// `clock`: the fault of the wall clock.
    pub fn new(
        source: PartHealth,
        registry: PartHealth,
        spool: PartHealth,
        output: PartHealth,
        clock: Option<String>,
    ) -> Self {
        let ready = source.ready && registry.ready && spool.ready;
        let clock = clock.map_or_else(PartHealth::ready, PartHealth::degraded);
        Self { ready, source, registry, spool, output, clock }
    }

    /// The same without its words, which name hosts, files and tenants.
    pub fn without_words(self) -> Self {
        let short = |part: PartHealth| PartHealth { why: None, ..part };
        let Self { ready, source, registry, spool, output, clock } = self;
        Self {
            ready,
            source: short(source),
            registry: short(registry),
            spool: short(spool),
            output: short(output),
            clock: short(clock),
        }
    }
}

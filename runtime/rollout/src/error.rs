//! Faults of a rollout.

use crate::comparison::Comparison;
use tidegate_core::disk_reserve::DiskLow;
use tidegate_core::tenant::over_budget::OverBudget;
use tidegate_decode::SandboxError;

/// The reason that a component cannot serve, for the person who shipped it.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error("cannot read it: {0}")]
    Unreadable(std::io::Error),
    #[error("it has {bytes} bytes; at most {most} are allowed")]
    TooLarge { bytes: u64, most: u64 },
    /// It would be taken where the operator grants more.
    #[error(
        "it has {bytes} bytes; at most {most} are allowed. A decoder that contains an engine, such as JavaScript, needs class = \"large\". The operator grants it in the gateway's configuration: {grant}"
    )]
    NeedsLarge { bytes: u64, most: u64, grant: String },
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("it does not compile: {0}")]
    Compile(String),
    #[error("compiling it takes more than {0}")]
    CompileLimit(CompileLimit),
    #[error("it refuses this route: {0}")]
    Configure(String),
    #[error("it fails at its start: {0}")]
    Start(String),
    #[error("{0}")]
    RouteFile(String),
    #[error("it is a link to a place outside of the guests folder")]
    Outside,
    #[error("it is a link to a place outside of its tenant's folder")]
    OtherTenant,
    #[error("it fails its cases: {0}")]
    Cases(String),
    #[error("the run on recent messages: {0}")]
    Shadow(String),
    /// It was refused or rolled back before.
    #[error("{0} (it is not tried again until its file changes)")]
    Known(String),
    #[error("there is no such decoder")]
    NotThere,
    #[error("there is no version to go back to")]
    NoPrevious,
    #[error(transparent)]
    DiskLow(#[from] DiskLow),
    /// A tenant's token has used the room that its tenant has.
    #[error("{0}")]
    Quota(String),
    #[error("components of {tenant} took too long to compile; the next is taken in {seconds} s")]
    Paused { tenant: String, seconds: u64 },
    /// Somebody put another version meanwhile.
    #[error(
        "the decoder was changed meanwhile: you began with {began_with}, and {serves}. Nothing was put: look at what serves now, and put again if yours is to take its place"
    )]
    Changed { began_with: String, serves: String },
    /// The caller asked for no difference.
    #[error("{0}")]
    Different(Comparison),
    /// It is tried again: its tenant may come to have room.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// Ours, not the guest's.
    #[error("{0}")]
    Host(String),
}

impl RolloutError {
    /// True if the guest is not at fault: it may be tried again.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Unreadable(_) | Self::OverBudget(_))
            || self.is_of_a_busy_machine()
    }

    /// True if the compiler had too little of the machine: within its CPU time, it came to no end by the
    /// clock.
    pub fn is_of_a_busy_machine(&self) -> bool {
        matches!(self, Self::CompileLimit(CompileLimit::Wall(_)))
    }

    /// Its name in the metric of swaps.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Cases(_) => "refused_cases",
            Self::Shadow(_) | Self::Different(_) => "refused_shadow",
            _ => "refused",
        }
    }
}

/// The limit that ended a compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileLimit {
    #[error("{0} s of CPU time")]
    Cpu(u64),
    #[error("{} MiB of memory", .0 >> 20)]
    Memory(u64),
    #[error("{} MiB of machine code", .0 >> 20)]
    Output(u64),
    #[error("{0} s of real time")]
    Wall(u64),
    #[error("the compiler's stack: the component is nested too deep")]
    Stack,
}

//! Faults of the sandbox, and of components that do not fit it.

use crate::sandbox::interface::OFFERED;
use crate::sandbox::wasi::names::PACKAGES;

/// A component cannot be loaded, or the sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("it is a core module, not a component: make a component with tidegate guest wrap")]
    CoreModule,
    #[error("it is no WebAssembly component")]
    NotWasm,
    #[error("it imports {import}, which Tidegate does not offer; it offers {offered}", offered = offered())]
    Import { import: String },
    #[error("it does not fit the interface tidegate:ingest (0.1.0, 1.0.0, 1.1.0): {0}")]
    Interface(String),
    #[error("the sandbox cannot be set up: {0}")]
    Setup(String),
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

fn offered() -> String {
    format!("{}, and WASI 0.2 ({})", OFFERED.join(", "), PACKAGES.join(", "))
}

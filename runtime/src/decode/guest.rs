//! A guest: a component that was checked, compiled, and linked to what the host offers.

use std::fmt;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use super::abi::{self, ExportsPre, HostState};
use super::compile::CompileLimit;
use super::sandbox::Sandbox;
use crate::domain::ids::GuestTag;

/// Why a component cannot serve. For the person who shipped it.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("cannot read it: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it has {bytes} bytes; at most {most} are allowed")]
    TooLarge { bytes: u64, most: u64 },
    /// It would be taken where the operator grants more.
    #[error(
        "it has {bytes} bytes; at most {most} are allowed. A decoder that contains an engine, such as JavaScript, needs class = \"large\". The operator grants it in the gateway's configuration: {grant}"
    )]
    NeedsLarge { bytes: u64, most: u64, grant: String },
    #[error("it is a core module, not a component: make a component with tidegate guest wrap")]
    CoreModule,
    #[error("it is no WebAssembly component")]
    NotWasm,
    #[error("it does not compile: {0}")]
    Compile(String),
    #[error("compiling it takes more than {0}")]
    CompileLimit(CompileLimit),
    #[error("it imports {import}, which Tidegate does not offer; it offers {offered}", offered = abi::OFFERED.join(", "))]
    Import { import: String },
    #[error("it does not fit the interface tidegate:ingest (0.1.0, 1.0.0): {0}")]
    Interface(String),
    #[error("it refuses this route: {0}")]
    Configure(String),
    #[error("it fails at its start: {0}")]
    Start(String),
    #[error("{0}")]
    RouteFile(String),
    #[error("it is a link to a place outside of the guests folder")]
    Outside,
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
    /// Ours, not the guest's.
    #[error("{0}")]
    Host(String),
}

impl GuestError {
    /// Whether the gateway is at fault, and not the guest: it may be tried again.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Unreadable(_)) || self.is_of_a_busy_machine()
    }

    /// Whether the compiler had too little of the machine: within its CPU time, it came to no end by the
    /// clock.
    pub fn is_of_a_busy_machine(&self) -> bool {
        matches!(self, Self::CompileLimit(CompileLimit::Wall(_)))
    }

    /// What the metric of swaps calls it.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Cases(_) => "refused_cases",
            Self::Shadow(_) => "refused_shadow",
            _ => "refused",
        }
    }
}

/// A guest that can be instantiated.
pub struct Guest {
    pub tag: GuestTag,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The version of the interface that it was built for.
    pub interface: String,
    /// Whether it asks about its messages.
    pub imports_context: bool,
    /// Whether it keeps values between messages.
    pub imports_state: bool,
    pub exports: ExportsPre<HostState>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guest").field(&self.tag).finish()
    }
}

/// A component's digest.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Guest {
    /// Checks, compiles and links a component. `stem` names it where it does not name itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(sandbox: &Sandbox, bytes: &[u8], digest: &str, stem: &str) -> Result<Self, GuestError> {
        match bytes.get(..8) {
            Some([0, b'a', b's', b'm', _, _, 1, 0]) => {}
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => return Err(GuestError::CoreModule),
            _ => return Err(GuestError::NotWasm),
        }
        let engine = &sandbox.engine;
        let component = sandbox.compiler.component(engine, bytes, digest)?;
        let (mut imports_context, mut imports_state) = (false, false);
        let mut interface = String::new();
        for (import, _) in component.component_type().imports(engine) {
            if !abi::OFFERED.contains(&import) {
                return Err(GuestError::Import { import: import.to_owned() });
            }
            imports_context |= import.starts_with(abi::CONTEXT);
            imports_state |= import == abi::STATE;
            if let Some((_, version)) = import.split_once('@') {
                version.clone_into(&mut interface);
            }
        }
        let misfit = |error: wasmtime::Error| GuestError::Interface(format!("{error:#}"));
        let exports = ExportsPre::new(link(engine, &component).map_err(misfit)?).map_err(misfit)?;
        let (name, version) = own_name(bytes).unwrap_or_else(|| (stem.to_owned(), "0.0.0".to_owned()));
        let tag = GuestTag::new(&format!("{name}@{version}#{}", &digest[..12]));
        Ok(Self { tag, digest: digest.to_owned(), interface, imports_context, imports_state, exports })
    }
}

fn link(engine: &Engine, component: &Component) -> wasmtime::Result<InstancePre<HostState>> {
    let mut linker = Linker::new(engine);
    abi::offer(&mut linker)?;
    linker.instantiate_pre(component)
}

/// The custom section in which the SDK writes a guest's `name@version`.
const NAME_SECTION: &str = "tidegate:guest";

/// A guest's own name and version, from the component or a module inside it.
fn own_name(bytes: &[u8]) -> Option<(String, String)> {
    for payload in wasmparser::Parser::new(0).parse_all(bytes) {
        if let wasmparser::Payload::CustomSection(section) = payload.ok()?
            && section.name() == NAME_SECTION
        {
            let text = std::str::from_utf8(section.data()).ok()?;
            let (name, version) = text.split_once('@')?;
            let plain = |text: &str| {
                (1..=64).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
            };
            return (plain(name) && plain(version)).then(|| (name.to_owned(), version.to_owned()));
        }
    }
    None
}

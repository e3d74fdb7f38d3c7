//! A guest: a component that was checked, compiled, and linked to the host's functions.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::{Component, InstancePre, Linker};

use crate::error::SandboxError;
use crate::limits::DECODE_BATCH_MESSAGES_MAX;
use crate::sandbox::abi;
use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::abi::v1_0::bindings::DecoderPre as ExportsPre;
use crate::sandbox::engine::Engine;
use crate::sandbox::interface::{CONTEXT, ENVELOPE, OFFERED, STATE};
use crate::sandbox::wasi;
use tidegate_core::ids::GuestTag;

/// A guest that can be instantiated.
pub struct Guest {
    pub tag: GuestTag,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The version of the interface that it was built for.
    pub interface: String,
    /// True if it asks about its messages.
    pub imports_context: bool,
    /// True if it keeps values between messages.
    pub imports_state: bool,
    /// True if it asks for the tapes of its payloads.
    pub imports_envelope: bool,
    /// Messages in one call at most: one for a guest that asks WASI for times or random numbers.
    pub messages_a_call: usize,
    pub exports: ExportsPre<HostState>,
    /// Bytes of an instance that has just started; 0 before there was one.
    started_bytes: AtomicU64,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guest").field(&self.tag).finish()
    }
}

impl Guest {
    /// Tells a component from everything else, by its first bytes.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn check_header(bytes: &[u8]) -> Result<(), SandboxError> {
        match bytes.get(..8) {
            Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Err(SandboxError::CoreModule),
            _ => Err(SandboxError::NotWasm),
        }
    }

    /// Checks and links a component of these bytes that was compiled. `stem` names it where it does not
    /// name itself.
    ///
    /// # Errors
    /// It imports functions that are not offered, or does not fit the interface.
    pub fn load(
        engine: &Engine,
        component: &Component,
        bytes: &[u8],
        digest: &str,
        stem: &str,
    ) -> Result<Self, SandboxError> {
        let (mut imports_context, mut imports_state, mut imports_envelope) = (false, false, false);
        let mut interface = String::new();
        let mut messages_a_call = DECODE_BATCH_MESSAGES_MAX;
        for (import, _) in component.component_type().imports(engine) {
            if let Some(name) = wasi::names::interface(import) {
                if wasi::names::differs_by_message(name) {
                    messages_a_call = 1;
                }
                continue;
            }
            if !OFFERED.contains(&import) {
                return Err(SandboxError::Import { import: import.to_owned() });
            }
            imports_context |= import.starts_with(CONTEXT);
            imports_state |= import.starts_with(STATE);
            imports_envelope |= import == ENVELOPE;
            if let Some((_, version)) = import.split_once('@') {
                version.clone_into(&mut interface);
            }
        }
        let misfit = |error: wasmtime::Error| SandboxError::Interface(format!("{error:#}"));
        let exports = ExportsPre::new(link(engine, component).map_err(misfit)?).map_err(misfit)?;
        let (name, version) = own_name(bytes).unwrap_or_else(|| (stem.to_owned(), "0.0.0".to_owned()));
        let tag = GuestTag::new(&format!("{name}@{version}#{}", &digest[..12]));
        Ok(Self {
            tag,
            digest: digest.to_owned(),
            interface,
            imports_context,
            imports_state,
            imports_envelope,
            messages_a_call,
            exports,
            started_bytes: AtomicU64::new(0),
        })
    }

    /// Notes the bytes of an instance that has just started.
    pub fn record_started(&self, bytes: u64) {
        self.started_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that the next instance will take when it has started; 0 if none has started yet.
    pub fn started_bytes(&self) -> u64 {
        self.started_bytes.load(Ordering::Relaxed)
    }
}

fn link(engine: &Engine, component: &Component) -> wasmtime::Result<InstancePre<HostState>> {
    let mut linker = Linker::new(engine);
    abi::offer(&mut linker)?;
    wasi::offer(&mut linker, engine, component)?;
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

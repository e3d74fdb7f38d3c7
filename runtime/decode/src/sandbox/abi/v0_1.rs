//! `tidegate:ingest@0.1.0`, the interface before it was frozen: what it offers, in the words of the
//! version that followed it. Decoders that were built against it are served on.

use wasmtime::component::{HasSelf, Linker};

use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::abi::v0_1::bindings::tidegate::ingest::{context, log, types};
use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::context as context_1;
use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::log as log_1;

impl types::Host for HostState {}

impl context::Host for HostState {
    fn device(&mut self, index: u32) -> wasmtime::Result<String> {
        context_1::Host::device(self, index)
    }

    fn site(&mut self, index: u32) -> wasmtime::Result<String> {
        context_1::Host::site(self, index)
    }

    fn topic(&mut self, index: u32) -> wasmtime::Result<String> {
        context_1::Host::topic(self, index)
    }

    fn attribute(&mut self, index: u32, name: String) -> wasmtime::Result<Option<String>> {
        context_1::Host::attribute(self, index, name)
    }
}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, text: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => log_1::Level::Debug,
            log::Level::Info => log_1::Level::Info,
            log::Level::Warn => log_1::Level::Warn,
            log::Level::Error => log_1::Level::Error,
        };
        log_1::Host::write(self, level, text)
    }
}

/// Offers this version.
///
/// # Errors
/// Never in practice: names are defined once.
pub fn offer(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    bindings::Decoder::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

mod bindings {

    wasmtime::component::bindgen!({
        path: "../../wit/tidegate-ingest-0.1.0",
        world: "decoder",
        imports: { default: trappable },
    });
}

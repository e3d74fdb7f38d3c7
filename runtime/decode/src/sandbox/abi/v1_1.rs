//! `tidegate:ingest@1.1.0`: the version before it, in its words, and `envelope`.

use wasmtime::component::{HasSelf, Linker};

use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::{
    context as context_1_0, log as log_1_0, state as state_1_0,
};
use crate::sandbox::abi::v1_1::bindings::tidegate::ingest::{context, envelope, log, state, types};

impl types::Host for HostState {}

impl context::Host for HostState {
    fn device(&mut self, index: u32) -> wasmtime::Result<String> {
        context_1_0::Host::device(self, index)
    }

    fn site(&mut self, index: u32) -> wasmtime::Result<String> {
        context_1_0::Host::site(self, index)
    }

    fn topic(&mut self, index: u32) -> wasmtime::Result<String> {
        context_1_0::Host::topic(self, index)
    }

    fn attribute(&mut self, index: u32, name: String) -> wasmtime::Result<Option<String>> {
        context_1_0::Host::attribute(self, index, name)
    }
}

impl state::Host for HostState {
    fn get(&mut self, index: u32, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        state_1_0::Host::get(self, index, key)
    }

    fn set(
        &mut self,
        index: u32,
        key: String,
        value: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<(), state::Fault>> {
        let set = state_1_0::Host::set(self, index, key, value)?;
        Ok(set.map_err(|fault| match fault {
            state_1_0::Fault::BadKey => state::Fault::BadKey,
            state_1_0::Fault::ValueTooLarge => state::Fault::ValueTooLarge,
            state_1_0::Fault::TooManyKeys => state::Fault::TooManyKeys,
            state_1_0::Fault::NoRoom => state::Fault::NoRoom,
        }))
    }
}

impl envelope::Host for HostState {
    fn tapes(&mut self) -> wasmtime::Result<envelope::BatchTapes> {
        let (entries, ends) = std::mem::take(&mut self.tapes);
        Ok(envelope::BatchTapes { entries, ends })
    }
}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, text: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => log_1_0::Level::Debug,
            log::Level::Info => log_1_0::Level::Info,
            log::Level::Warn => log_1_0::Level::Warn,
            log::Level::Error => log_1_0::Level::Error,
        };
        log_1_0::Host::write(self, level, text)
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
        path: "../../wit/tidegate-ingest-1.1.0",
        world: "decoder",
        imports: { default: trappable },
    });
}

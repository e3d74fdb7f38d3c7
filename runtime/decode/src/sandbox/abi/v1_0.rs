//! `tidegate:ingest@1.0.0`, as the host offers it.

use wasmtime::component::{HasSelf, Linker};

use crate::route::guest_log::GuestLogLevel;
use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::{state, types};
use crate::state::StateError;

pub(super) use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::context;
pub(super) use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::log;

impl types::Host for HostState {}

impl context::Host for HostState {
    fn device(&mut self, index: u32) -> wasmtime::Result<String> {
        Ok(self.message(index)?.device.id.as_str().to_owned())
    }

    fn site(&mut self, index: u32) -> wasmtime::Result<String> {
        Ok(self.message(index)?.device.site.clone())
    }

    fn topic(&mut self, index: u32) -> wasmtime::Result<String> {
        Ok(self.message(index)?.topic.clone())
    }

    fn attribute(&mut self, index: u32, name: String) -> wasmtime::Result<Option<String>> {
        let content = self.message(index)?.content.as_ref();
        Ok(content.and_then(|content| content.attributes.get(&name)).map(str::to_owned))
    }
}

impl state::Host for HostState {
    fn get(&mut self, index: u32, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let (state_call, message) = self.state_call(index)?;
        Ok(state_call.get(index, message.device.id.as_str(), &message.topic, &key))
    }

    fn set(
        &mut self,
        index: u32,
        key: String,
        value: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<(), state::Fault>> {
        let (state_call, message) = self.state_call(index)?;
        let set = state_call.set(index, message.device.id.as_str(), &message.topic, key, value);
        Ok(set.map_err(|fault| match fault {
            StateError::BadKey => state::Fault::BadKey,
            StateError::ValueTooLarge => state::Fault::ValueTooLarge,
            StateError::TooManyKeys => state::Fault::TooManyKeys,
            StateError::NoRoom => state::Fault::NoRoom,
        }))
    }
}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, text: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => GuestLogLevel::Debug,
            log::Level::Info => GuestLogLevel::Info,
            log::Level::Warn => GuestLogLevel::Warn,
            log::Level::Error => GuestLogLevel::Error,
        };
        self.log(level, &text);
        Ok(())
    }
}

/// Offers this version.
///
/// # Errors
/// Never in practice: names are defined once.
pub fn offer(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    bindings::Decoder::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

pub(crate) mod bindings {

    wasmtime::component::bindgen!({
        path: "../../wit/tidegate-ingest-1.0.0",
        world: "decoder",
        imports: { default: trappable },
    });
}

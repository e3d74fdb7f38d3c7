//! The resources of WASI. Nothing stands behind a handle but its number.

use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource, ResourceType};

use crate::sandbox::abi::host_state::HostState;

pub(super) struct InputStream;
pub(super) struct OutputStream;
pub(super) struct Pollable;
pub(super) struct IoError;
pub(super) struct TerminalInput;
pub(super) struct TerminalOutput;
pub(super) struct Descriptor;
pub(super) struct Network;
/// A resource that no function gives.
struct NeverGiven;

/// Offers a resource by its name. Each interface that uses one exports it again: the same type everywhere.
pub(super) fn offer(interface: &mut LinkerInstance<'_, HostState>, name: &str) -> wasmtime::Result<()> {
    match name {
        "error" | "io-error" => define::<IoError>(interface, name),
        "pollable" => define::<Pollable>(interface, name),
        "input-stream" => define::<InputStream>(interface, name),
        "output-stream" => define::<OutputStream>(interface, name),
        "terminal-input" => define::<TerminalInput>(interface, name),
        "terminal-output" => define::<TerminalOutput>(interface, name),
        "descriptor" => define::<Descriptor>(interface, name),
        "network" => define::<Network>(interface, name),
        _ => define::<NeverGiven>(interface, name),
    }
}

fn define<T: 'static>(interface: &mut LinkerInstance<'_, HostState>, name: &str) -> wasmtime::Result<()> {
    interface.resource(name, ResourceType::host::<T>(), |mut store: StoreContextMut<'_, HostState>, _| {
        store.data_mut().world.drop_handle();
        Ok(())
    })
}

/// A handle for the guest.
///
/// # Errors
/// It has too many.
pub(super) fn give<T: 'static>(host: &mut HostState, rep: u32) -> wasmtime::Result<Resource<T>> {
    host.world.take_handle()?;
    Ok(Resource::new_own(rep))
}

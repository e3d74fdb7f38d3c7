//! WASI 0.2 for components of toolchains that bring it: what language runtimes call, deterministic, with nothing
//! behind it.
//!
//! - The clock is the time of receipt of the message, random numbers come from the message, what is written goes to
//!   the guest's log. There are no files, no sockets and no environment. No call waits.
//! - Every 0.2.N is served: functions are defined under the very names that a component imports. What is not offered
//!   traps with its name.
//! - There is no table of handles: a handle's number says what it is. They are counted.

pub mod names;
pub mod fault;
pub mod output;
pub mod world;
mod resources;
mod io;
mod clocks;
mod random;
mod cli;
mod places;

use wasmtime::Engine;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance};

use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::wasi::fault::WasiFault;

/// Offers what a component imports of WASI.
///
/// # Errors
/// Never in practice: the names are the component's own.
pub fn offer(linker: &mut Linker<HostState>, engine: &Engine, component: &Component) -> wasmtime::Result<()> {
    // First everything as a trap, then what is there over it.
    linker.allow_shadowing(true);
    for (import, item) in component.component_type().imports(engine) {
        let Some(name) = names::interface(import) else { continue };
        let ComponentItem::ComponentInstance(wanted) = item.ty else { continue };
        let mut interface = linker.instance(import)?;
        offer_traps(&mut interface, engine, import, &wanted)?;
        match name {
            "wasi:io/poll" => io::offer_poll(&mut interface)?,
            "wasi:io/streams" => io::offer_streams(&mut interface)?,
            "wasi:clocks/wall-clock" => clocks::offer_wall(&mut interface)?,
            "wasi:clocks/monotonic-clock" => clocks::offer_monotonic(&mut interface)?,
            "wasi:random/random" => random::offer(&mut interface, "")?,
            "wasi:random/insecure" => random::offer(&mut interface, "insecure-")?,
            "wasi:random/insecure-seed" => random::offer_seed(&mut interface)?,
            "wasi:cli/environment" => cli::offer_environment(&mut interface)?,
            "wasi:cli/exit" => cli::offer_exit(&mut interface)?,
            "wasi:cli/stdin" => cli::offer_stdin(&mut interface)?,
            "wasi:cli/stdout" => cli::offer_output(&mut interface, "get-stdout", output::Stream::Out)?,
            "wasi:cli/stderr" => cli::offer_output(&mut interface, "get-stderr", output::Stream::Err)?,
            "wasi:cli/terminal-stdin" => cli::offer_no_terminal_input(&mut interface)?,
            "wasi:cli/terminal-stdout" | "wasi:cli/terminal-stderr" => {
                cli::offer_no_terminal_output(&mut interface, name)?;
            }
            "wasi:filesystem/preopens" => places::offer_no_folders(&mut interface)?,
            "wasi:sockets/instance-network" => places::offer_network(&mut interface)?,
            _ => {}
        }
    }
    Ok(())
}

/// The resources of an interface, and functions that trap with their name.
fn offer_traps(
    interface: &mut LinkerInstance<'_, HostState>,
    engine: &Engine,
    import: &str,
    wanted: &ComponentInstance,
) -> wasmtime::Result<()> {
    for (name, item) in wanted.exports(engine) {
        match item.ty {
            ComponentItem::Resource(_) => resources::offer(interface, name)?,
            ComponentItem::ComponentFunc(_) => {
                let called = format!("{import}#{name}");
                interface.func_new(name, move |_, _, _, _| {
                    Err(WasiFault::error(format!("called {called}, which a decoder does not have")))
                })?;
            }
            _ => {}
        }
    }
    Ok(())
}

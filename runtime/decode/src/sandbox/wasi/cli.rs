//! `wasi:cli`: no arguments, no environment, no input and no terminal; an exit is a trap.

use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource};

use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::wasi::fault::WasiFault;
use crate::sandbox::wasi::output::Stream;
use crate::sandbox::wasi::resources::{InputStream, OutputStream, TerminalInput, TerminalOutput, give};

type Call<'a> = StoreContextMut<'a, HostState>;

pub(super) fn offer_environment(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("get-environment", |_: Call<'_>, _: ()| Ok((Vec::<(String, String)>::new(),)))?;
    interface.func_wrap("get-arguments", |_: Call<'_>, _: ()| Ok((Vec::<String>::new(),)))?;
    interface.func_wrap("initial-cwd", |_: Call<'_>, _: ()| Ok((None::<String>,)))
}

pub(super) fn offer_exit(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("exit", |_: Call<'_>, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
        let status = if status.is_ok() { "success" } else { "failure" };
        Err(WasiFault::error(format!("exits with {status}: a decoder answers, it does not end")))
    })
}

pub(super) fn offer_stdin(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface
        .func_wrap("get-stdin", |mut store: Call<'_>, _: ()| Ok((give::<InputStream>(store.data_mut(), 0)?,)))
}

pub(super) fn offer_output(
    interface: &mut LinkerInstance<'_, HostState>,
    name: &str,
    stream: Stream,
) -> wasmtime::Result<()> {
    interface.func_wrap(name, move |mut store: Call<'_>, _: ()| {
        Ok((give::<OutputStream>(store.data_mut(), stream.rep())?,))
    })
}

pub(super) fn offer_no_terminal_input(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("get-terminal-stdin", |_: Call<'_>, _: ()| Ok((None::<Resource<TerminalInput>>,)))
}

/// `wasi:cli/terminal-stdout` and `wasi:cli/terminal-stderr`.
pub(super) fn offer_no_terminal_output(
    interface: &mut LinkerInstance<'_, HostState>,
    of: &str,
) -> wasmtime::Result<()> {
    let name = of.replace("wasi:cli/", "get-");
    interface.func_wrap(&name, |_: Call<'_>, _: ()| Ok((None::<Resource<TerminalOutput>>,)))
}

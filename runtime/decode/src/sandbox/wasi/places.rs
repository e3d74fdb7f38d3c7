//! `wasi:filesystem` and `wasi:sockets`: no folders, and a network that nothing can be done with.

use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource};

use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::wasi::resources::{Descriptor, Network, give};

type Call<'a> = StoreContextMut<'a, HostState>;

pub(super) fn offer_no_folders(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("get-directories", |_: Call<'_>, _: ()| {
        Ok((Vec::<(Resource<Descriptor>, String)>::new(),))
    })
}

pub(super) fn offer_network(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("instance-network", |mut store: Call<'_>, _: ()| {
        Ok((give::<Network>(store.data_mut(), 0)?,))
    })
}

//! `wasi:random`: numbers that follow from the message. They are no secret.

use wasmtime::StoreContextMut;
use wasmtime::component::LinkerInstance;

use crate::limits::WASI_RANDOM_BYTES_MAX;
use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::wasi::fault::WasiFault;
use crate::sandbox::wasi::world::World;

type Call<'a> = StoreContextMut<'a, HostState>;

/// `wasi:random/random`, and with `insecure-` in the names of its functions `wasi:random/insecure`.
pub(super) fn offer(interface: &mut LinkerInstance<'_, HostState>, infix: &str) -> wasmtime::Result<()> {
    interface.func_wrap(&format!("get-{infix}random-bytes"), |mut store: Call<'_>, (count,): (u64,)| {
        if count > WASI_RANDOM_BYTES_MAX {
            let text = format!("asks for {count} random bytes at once: at most {WASI_RANDOM_BYTES_MAX}");
            return Err(WasiFault::error(text));
        }
        let world = &mut store.data_mut().world;
        let mut bytes = Vec::with_capacity(count as usize + 8);
        while bytes.len() < count as usize {
            bytes.extend_from_slice(&world.random().to_le_bytes());
        }
        bytes.truncate(count as usize);
        Ok((bytes,))
    })?;
    interface.func_wrap(&format!("get-{infix}random-u64"), |mut store: Call<'_>, _: ()| {
        Ok((store.data_mut().world.random(),))
    })
}

/// `wasi:random/insecure-seed`: the keys of hash tables, which live over many messages.
pub(super) fn offer_seed(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("insecure-seed", |_: Call<'_>, _: ()| Ok((World::constant_seed(),)))
}

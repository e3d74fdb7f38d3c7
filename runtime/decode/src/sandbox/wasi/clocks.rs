//! `wasi:clocks`: the time of receipt of the message, and a clock that moves by questions.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower};

use crate::limits::WASI_CLOCK_STEP_NS;
use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::wasi::resources::{Pollable, give};

type Call<'a> = StoreContextMut<'a, HostState>;

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

pub(super) fn offer_wall(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("now", |store: Call<'_>, _: ()| {
        let (seconds, nanoseconds) = store.data().world.now();
        Ok((Datetime { seconds, nanoseconds },))
    })?;
    interface.func_wrap("resolution", |_: Call<'_>, _: ()| Ok((Datetime { seconds: 0, nanoseconds: 1 },)))
}

pub(super) fn offer_monotonic(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("now", |mut store: Call<'_>, _: ()| Ok((store.data_mut().world.monotonic_ns(),)))?;
    interface.func_wrap("resolution", |_: Call<'_>, _: ()| Ok((WASI_CLOCK_STEP_NS,)))?;
    // What is slept is past: the clock stands where the sleeper wished to wake.
    interface.func_wrap("subscribe-duration", |mut store: Call<'_>, (ns,): (u64,)| {
        store.data_mut().world.sleep(ns);
        Ok((give::<Pollable>(store.data_mut(), 0)?,))
    })?;
    interface.func_wrap("subscribe-instant", |mut store: Call<'_>, (ns,): (u64,)| {
        store.data_mut().world.sleep_until(ns);
        Ok((give::<Pollable>(store.data_mut(), 0)?,))
    })
}

//! `wasi:io`: streams that end at once or go to the guest's log, and polls that wait for nothing.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource};

use crate::limits::WASI_WRITE_BYTES_MAX;
use crate::sandbox::abi::host_state::HostState;
use crate::sandbox::wasi::fault::WasiFault;
use crate::sandbox::wasi::output::Stream;
use crate::sandbox::wasi::resources::{InputStream, IoError, OutputStream, Pollable, give};

type Call<'a> = StoreContextMut<'a, HostState>;

type StreamAnswer<T> = wasmtime::Result<(Result<T, StreamError>,)>;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

/// `wasi:io/poll`: everything is ready at once.
pub(super) fn offer_poll(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    interface.func_wrap("[method]pollable.ready", |_: Call<'_>, _: (Resource<Pollable>,)| Ok((true,)))?;
    interface.func_wrap("[method]pollable.block", |_: Call<'_>, _: (Resource<Pollable>,)| Ok(()))?;
    interface.func_wrap("poll", |_: Call<'_>, (polled,): (Vec<Resource<Pollable>>,)| {
        if polled.is_empty() {
            return Err(WasiFault::error("polls nothing: expected a pollable at least".into()));
        }
        Ok(((0..polled.len() as u32).collect::<Vec<u32>>(),))
    })
}

/// `wasi:io/streams`.
pub(super) fn offer_streams(interface: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    for name in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        interface.func_wrap(
            name,
            |_: Call<'_>, _: (Resource<InputStream>, u64)| -> StreamAnswer<Vec<u8>> {
                Ok((Err(StreamError::Closed),))
            },
        )?;
    }
    interface
        .func_wrap("[method]input-stream.subscribe", |mut store: Call<'_>, _: (Resource<InputStream>,)| {
            Ok((give::<Pollable>(store.data_mut(), 0)?,))
        })?;
    interface.func_wrap(
        "[method]output-stream.subscribe",
        |mut store: Call<'_>, _: (Resource<OutputStream>,)| Ok((give::<Pollable>(store.data_mut(), 0)?,)),
    )?;
    interface.func_wrap(
        "[method]output-stream.check-write",
        |_: Call<'_>, _: (Resource<OutputStream>,)| -> StreamAnswer<u64> {
            Ok((Ok(WASI_WRITE_BYTES_MAX as u64),))
        },
    )?;
    for name in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        interface.func_wrap(name, write)?;
    }
    for name in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        interface.func_wrap(name, |_: Call<'_>, _: (Resource<OutputStream>,)| -> StreamAnswer<()> {
            Ok((Ok(()),))
        })?;
    }
    Ok(())
}

fn write(mut store: Call<'_>, (stream, bytes): (Resource<OutputStream>, Vec<u8>)) -> StreamAnswer<()> {
    if bytes.len() > WASI_WRITE_BYTES_MAX {
        let text = format!("writes {} bytes at once: at most {WASI_WRITE_BYTES_MAX}", bytes.len());
        return Err(WasiFault::error(text));
    }
    store.data_mut().world.output.write(Stream::of_rep(stream.rep()), &bytes);
    Ok((Ok(()),))
}

//! The wasmtime engine: its configuration, and the machine code that it makes and loads.

use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;

pub use wasmtime::Engine;
pub use wasmtime::component::Component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::limits::{
    CORE_INSTANCES_MAX, GUEST_STACK_BYTES, GUEST_TABLE_ELEMENTS_MAX, INSTANCE_KEPT_BYTES, INSTANCES_MAX,
    LARGE_STACK_BYTES,
};
use crate::settings::DecodeSettings;

/// Makes the engine that all guests run in but those of the class large.
///
/// # Errors
/// The host cannot reserve the address space.
pub fn engine(settings: &DecodeSettings) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    let instances = INSTANCES_MAX as u32;
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_MAX)
        .total_memories(instances)
        .total_tables(instances * 2)
        .max_memories_per_component(1)
        .max_tables_per_component(2)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memory_size(settings.memory_bytes_max as usize)
        .table_elements(GUEST_TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(INSTANCE_KEPT_BYTES)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    Engine::new(config().allocation_strategy(InstanceAllocationStrategy::Pooling(pool)))
}

/// Makes the engine of the class large: without a pool, each instance's memory is mapped when it is
/// made, and gone with it.
///
/// # Errors
/// Never in practice: the configuration is constant.
pub fn large_engine() -> wasmtime::Result<Engine> {
    Engine::new(config().max_wasm_stack(LARGE_STACK_BYTES))
}

/// An engine that only compiles: the same code, and no pool, whose address space is more than a
/// compiler may have.
///
/// # Errors
/// Never in practice: the configuration is constant.
fn compiling_engine() -> wasmtime::Result<Engine> {
    Engine::new(config().parallel_compilation(false))
}

/// All that decides about machine code.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Off: it costs 300 ns a call, and nothing here is concurrent within a store.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .wasm_memory64(false)
        .memory_init_cow(true)
        .cranelift_opt_level(OptLevel::Speed);
    config
}

/// Feeds a hasher with all that decides whether an engine can load a piece of machine code.
pub fn hash_compatibility(engine: &Engine, hasher: &mut impl Hasher) {
    engine.precompile_compatibility_hash().hash(hasher);
}

/// Compiles a component to machine code that every engine of ours can load.
///
/// # Errors
/// It does not compile, in words.
pub fn precompile(component: &[u8]) -> Result<Vec<u8>, String> {
    let engine = compiling_engine().map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// Maps machine code that `precompile` made; where the file system lets nothing be run from it
/// (`noexec`), reads it.
///
/// # Safety
/// The file was made whole by `precompile`, nobody else can write to it, and nothing changes it
/// afterwards.
///
/// # Errors
/// The file cannot be read, or is not of this engine; in words.
pub unsafe fn load(engine: &Engine, path: &Path) -> Result<Component, String> {
    // SAFETY: promised by the caller.
    let mapped = unsafe { Component::deserialize_file(engine, path) };
    let loaded = mapped.or_else(|error| {
        let Ok(bytes) = fs::read(path) else { return Err(error) };
        // SAFETY: as above.
        unsafe { Component::deserialize(engine, bytes) }.map_err(|_| error)
    });
    loaded.map_err(|error| format!("{error:#}"))
}

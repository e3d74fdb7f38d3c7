//! The wasmtime engine: what its configuration allows, and the clock that ends long calls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::DecodeSettings;
use crate::domain::limits::{
    EPOCH_TICK_MS, GUEST_STACK_BYTES, GUEST_TABLE_ELEMENTS_MAX, INSTANCE_KEPT_BYTES, INSTANCES_MAX,
    LARGE_STACK_BYTES,
};
use crate::domain::worker::{self, Priority};

/// Makes the engine that all guests run in but those of the class large.
///
/// # Errors
/// The host cannot reserve the address space.
pub fn engine(settings: &DecodeSettings) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    let instances = INSTANCES_MAX as u32;
    pool.total_component_instances(instances)
        .total_core_instances(instances * 4)
        .total_memories(instances)
        .total_tables(instances * 2)
        .max_memories_per_component(1)
        .max_tables_per_component(2)
        .max_core_instances_per_component(4)
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
pub fn compiling_engine() -> wasmtime::Result<Engine> {
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

/// The clock that ends long calls: increments the epoch every tick while a guest runs, and sleeps
/// while none does, so that an idle gateway costs nothing.
#[derive(Debug)]
pub struct EpochClock {
    running: AtomicUsize,
    thread: Thread,
}

impl EpochClock {
    /// Starts the clock's thread, which ends with the engine.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(engine: &Engine) -> std::io::Result<Arc<Self>> {
        let engine = engine.weak();
        let (to_thread, from_here) = std::sync::mpsc::channel::<Weak<Self>>();
        let thread = worker::start("epoch", Priority::Normal, move || {
            let Ok(clock) = from_here.recv() else { return };
            while let (Some(engine), Some(clock)) = (engine.upgrade(), clock.upgrade()) {
                if clock.running.load(Ordering::SeqCst) == 0 {
                    drop((engine, clock));
                    std::thread::park();
                    continue;
                }
                engine.increment_epoch();
                drop((engine, clock));
                std::thread::sleep(Duration::from_millis(EPOCH_TICK_MS));
            }
        })?;
        let clock = Arc::new(Self { running: AtomicUsize::new(0), thread: thread.thread().clone() });
        let _ = to_thread.send(Arc::downgrade(&clock));
        Ok(clock)
    }

    /// Ticks until what this gives is dropped.
    pub fn run(&self) -> Running<'_> {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Running(self)
    }
}

impl Drop for EpochClock {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

/// A guest runs.
#[derive(Debug)]
pub struct Running<'a>(&'a EpochClock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// CPU time that the calling thread has used (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours; this clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

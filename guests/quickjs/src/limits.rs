//! Ceilings of the engine, each with the reason for its number.

/// Bytes of the engine's heap: two thirds of the memory that a decoder has by default, so that a script that takes all
/// of it leaves room for what the decoder itself needs. The largest public codec takes three mebibytes.
pub const HEAP_BYTES_MAX: usize = 10 << 20;

/// Bytes of the stack on which the engine keeps the script's frames. The sandbox ends deeper recursion before, on
/// the stack of the machine.
pub const STACK_BYTES_MAX: usize = 512 << 10;

/// Bytes of a script: as TS013 of the LoRa Alliance says.
pub const SCRIPT_BYTES_MAX: usize = 64 << 10;

/// The most that a route may set for it: the largest public codec has 101 kB.
pub const SCRIPT_BYTES_CEILING: usize = 512 << 10;

/// Bytes that a message may allocate before cycles are looked for.
pub const GARBAGE_BYTES: usize = 2 << 20;

/// Levels of a result: public codecs go to 6.
pub const DEPTH_MAX: usize = 32;

/// Values of a result: public codecs go to 99 fields.
pub const VALUES_MAX: usize = 4_096;

/// Frames of a stack that are shown.
pub const FRAMES_MAX: usize = 4;

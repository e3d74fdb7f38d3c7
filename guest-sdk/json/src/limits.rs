//! Ceilings.

/// The greatest depth of nested containers: 127, as `serde_json` has it. A guest that walks a
/// value by recursion stays far from the end of its 256 KiB of stack.
pub const DEPTH_MAX: u32 = 127;

/// The most values of a text that has a tape: 2 KiB, kept beside a message until it is decoded.
pub const TAPE_ENTRIES_MAX: usize = 256;

/// The longest text that has a tape, in bytes: an offset has 16 bits.
pub const TAPE_TEXT_BYTES_MAX: usize = 0xffff;

//! Ceilings.

/// The greatest depth of nested containers: 127, as `serde_json` has it. A guest that walks a
/// value by recursion stays far from the end of its 256 KiB of stack.
pub const DEPTH_MAX: u32 = 127;

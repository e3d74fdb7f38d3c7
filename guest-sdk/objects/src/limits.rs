//! Ceilings.

/// Leaves deeper than this are refused: 64 levels fit the stack of a decoder that recurses.
pub const DEPTH_MAX: usize = 64;

/// Values of one payload. InfluxDB 3 takes 500 columns of a table, the older ones advise against a
/// thousand; so many are decoded in a fraction of a call's CPU time.
pub const FIELDS_MAX: usize = 4_096;

/// Bytes of all joined keys together: what a payload of the usual ceiling can spell out without nesting.
/// A long key above many short ones would be written out again for each of them.
pub(crate) const KEY_BYTES_MAX: usize = 256 << 10;

/// Lines of one payload, as many as the gateway takes of a message.
pub(crate) const LINES_MAX: usize = 1_000;

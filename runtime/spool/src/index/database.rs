//! The index of one database, and a frame that is fetched of it.

use crate::ids::{FrameId, FrameLocation};
use tidegate_core::durable::MessageSet;

#[derive(Debug, Default)]
pub struct DatabaseIndex {
    pub streams: Vec<u32>,
    /// Bytes of frames that the writer has.
    pub memory_bytes: u64,
    /// The turn among the streams; taken modulo their number.
    pub turn: usize,
}

/// A frame that the writer is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    pub id: FrameId,
    pub place: FrameLocation,
    pub messages: MessageSet,
    pub lines: u32,
    pub kept_s: u32,
    /// The same as in `StreamPosition`.
    pub returns: u32,
    pub is_last: bool,
}

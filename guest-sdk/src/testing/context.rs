//! The context of a test message.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// The answers of the gateway about a message, and the state of its partition.
#[derive(Clone, Debug, Default)]
pub struct Context {
    pub device: String,
    pub site: String,
    pub topic: String,
    /// Attributes by their names.
    pub attributes: BTreeMap<String, String>,
    /// The state. A refused message does not change it.
    pub state: RefCell<BTreeMap<String, Vec<u8>>>,
}

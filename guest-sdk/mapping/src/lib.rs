//! A mapping says where values stand in a payload: in bytes at offsets, or in JSON, CBOR, MessagePack and CSV. The decoder
//! `mapping` is this with the options of its route; `tidegate mapping try` shows it at work.
//!
//! ```
//! use tidegate_guest::{Lines, Route};
//! use tidegate_mapping::Mapping;
//!
//! let options = [("measurement", "meter"), ("fields", r#"{"temp": "i16be@1 * 0.1"}"#)];
//! let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
//! let mapping = Mapping::read(&Route { options, ..Route::default() })?;
//! let mut lines = Lines::default();
//! mapping.decode(&[1, 0x00, 0xd5], 0, &mut lines).unwrap(); // meter temp=21.3
//! # assert!(!lines.is_empty());
//! # Ok::<(), String>(())
//! ```

mod limits;
mod format;
mod setting;
mod scale;
mod bytes;
mod byte_layout;
mod plain_source;
mod byte_source;
mod document;
mod cursor;
mod json;
mod cbor;
mod msgpack;
mod csv;
mod observer;
mod source;
mod condition;
mod plain_number;
mod value_rule;
mod time_rule;
mod line_rule;
mod records;
mod mapping;
mod decode;

pub use byte_source::hex;
pub use mapping::Mapping;
pub use observer::{NoObserver, ObservedValue, Observer, Role, ValuePlace};
pub use tidegate_objects::Leaf;

//! A strict, borrowing pull reader for JSON (RFC 8259), for decoders and for the host.
//!
//! [`Reader`] walks a text once, gives the values that are asked for as slices of the input, and skips
//! the rest. Skipped values are checked as strictly as those that are read. It allocates only to undo escapes
//! in a string ([`Text::decode`]).
//!
//! ```
//! use tidegate_json::Reader;
//!
//! # fn main() -> Result<(), tidegate_json::Error> {
//! let mut reader = Reader::new(br#"{"note": [1, 2], "seq": 7}"#);
//! let mut seq = None;
//! reader.object()?;
//! while let Some(key) = reader.next_key()? {
//!     if key.is("seq") {
//!         seq = reader.number()?.as_i64().ok();
//!     } // a value that is not read is skipped
//! }
//! reader.end()?;
//! assert_eq!(seq, Some(7));
//! # Ok(())
//! # }
//! ```
//!
//! These are refused everywhere: text that is not UTF-8, a byte order mark, control
//! characters in strings, escapes of half a surrogate pair, numbers outside the grammar (`01`,
//! `.5`, `+1`, `NaN`), nesting deeper than [`DEPTH_MAX`], and text behind the value. The verdict is
//! that of `serde_json` for a `Value`, with one exception: a number too large for a 64-bit float is
//! a number here, because its size matters only to a caller that reads it ([`Number::as_f64`] is
//! `None`).
//!
//! Equal keys in one object are left to the caller: they come in the order of the text.

mod error;
mod limits;
mod number;
mod recorder;
mod reader;
mod tape;
mod text;

pub use error::{Error, ErrorKind};
pub use limits::{DEPTH_MAX, TAPE_ENTRIES_MAX};
pub use number::{NotI64, Number};
pub use reader::{Kind, Reader};
pub use tape::{Tape, TapeElements, TapeMembers, TapeValue, TapeWriter};
pub use text::Text;

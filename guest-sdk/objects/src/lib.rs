//! Objects to lines, by one set of rules for every decoder that meets objects: of JSON, CBOR, MessagePack, or JavaScript.
//!
//! A decoder reads its options into [`ObjectRules`] once, and walks each object into [`Objects`]: `key`, `leaf`, `begin`
//! and `end`, in the order of the object. `finish` writes the lines.
//!
//! ```
//! use tidegate_guest::Lines;
//! use tidegate_objects::{Container, Leaf, ObjectRules, Objects};
//!
//! # fn main() -> Result<(), tidegate_guest::Refusal> {
//! let route = tidegate_guest::Route { message_type: "sensor".into(), ..Default::default() };
//! let rules = ObjectRules::read(&route).expect("options that make sense");
//! let mut objects = Objects::default();
//! let mut lines = Lines::default();
//! // {"t": {"in": 21.5}, "on": true}
//! let mut walk = objects.walk(&rules);
//! walk.begin(Container::Object)?;
//! walk.key("t");
//! walk.begin(Container::Object)?;
//! walk.key("in");
//! walk.leaf(Leaf::Float(21.5))?;
//! walk.end();
//! walk.key("on");
//! walk.leaf(Leaf::Boolean(true))?;
//! walk.end();
//! walk.finish(&mut lines)?; // sensor t_in=21.5,on=true
//! # Ok(())
//! # }
//! ```
//!
//! - Keys of nested objects are joined by `_`, elements of arrays by their index.
//! - null and numbers that are not finite make no field.
//! - A number is a float, unless the route pins its type (`types`) or keeps integers (`integers`).
//! - Texts are strings, or numbers and booleans where the route says `strings = "parse"`.
//! - Each element of an array that the route names in `explode` makes a line of its own, with its own time. Its keys are
//!   joined without the index. Tags and time around the array hold for its elements too.
//! - A name that the gateway or the database needs (`time`, and `device_id` and `site_id`) gets `_` behind it.
//!   The outermost credentials are left out.
//! - Depth, fields and bytes of names have ceilings.

mod limits;
mod leaf;
mod time_option;
mod rules;
mod json_text;
mod walk;
mod write;

pub use leaf::{Container, Leaf};
pub use limits::{DEPTH_MAX, FIELDS_MAX};
pub use rules::{FieldType, Integers, ObjectRules, Strings, parse_text};
pub use time_option::{TimeFormat, TimeOption, read_time};
pub use walk::{Objects, Walk};
pub use write::{free, typed};

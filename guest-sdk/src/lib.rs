//! The SDK for Tidegate decoders. A decoder is a component that turns the payloads of one message type
//! of one tenant into InfluxDB line protocol.
//!
//! ```
//! use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};
//!
//! struct Thermometer;
//!
//! impl Decoder for Thermometer {
//!     fn configure(_: &Route) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
//!         let text = message.text()?;
//!         let celsius = text.trim().parse().map_err(|_| Refusal::new("BAD_NUMBER", format!("{text:?}")))?;
//!         lines.line("thermometer").float("celsius", celsius).end()
//!     }
//! }
//!
//! tidegate_guest::export!(Thermometer);
//! # let lines = tidegate_guest::testing::decode::<Thermometer>(&Route::default(), b"21.5").unwrap();
//! # assert_eq!(lines, "thermometer celsius=21.5\n");
//! ```
//!
//! The line builder never writes an invalid line. `json` is a strict pull reader that borrows from the
//! payload. `time` reads ISO 8601. `state` keeps small values between messages. `testing` runs a decoder
//! natively.

mod decoder;
mod route;
mod message;
mod refusal;
mod lines;
pub mod state;
pub mod log;
pub mod ignored;
pub mod float;
pub mod time;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[doc(hidden)]
pub mod export;
#[cfg(target_arch = "wasm32")]
mod batch_tapes;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wasm;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;

pub use decoder::Decoder;
pub use lines::{Line, Lines};
pub use message::Message;
pub use refusal::Refusal;
pub use route::Route;
pub use state::{State, StateFault};
pub use tidegate_json as json;

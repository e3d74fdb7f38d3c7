//! Texts for the gateway's log and for `tidegate guest log`. The gateway limits them: it drops and counts
//! texts above the limits. Natively they go to stderr.

/// Writes a text for the search for a fault.
pub fn debug(text: &str) {
    write(Level::Debug, text);
}

pub fn info(text: &str) {
    write(Level::Info, text);
}

pub fn warn(text: &str) {
    write(Level::Warn, text);
}

pub fn error(text: &str) {
    write(Level::Error, text);
}

#[cfg(target_arch = "wasm32")]
use crate::bindings::tidegate::ingest::log::{Level, write};

#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, text: &str) {
    eprintln!("{level:?}: {text}");
}

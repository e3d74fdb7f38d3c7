//! Calls of WASI that end a guest.

/// A call that a guest may not make, in words for the person who shipped it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WasiFault(String);

impl WasiFault {
    /// The fault as the runtime passes it on.
    pub fn error(text: String) -> wasmtime::Error {
        wasmtime::Error::from(Self(text))
    }
}

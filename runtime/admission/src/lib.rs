//! Admission: the checks of size, topic and rate, and the authentication of devices.
//!
//! The checks come in the order that users script against, and the first that fails names the
//! reason. One function checks a message (`check.rs`), for the stream and for `explain` alike.

mod admission;
mod check;
mod outcome;
mod settings;
pub mod rate_limits;
mod authenticate;
mod claims;
mod credentials;
mod proven_tokens;
pub mod envelope;
pub mod auth_cache;
pub mod registry;
mod lookup_request;
pub mod pending_messages;
pub mod unpark;
pub mod connect;
pub mod pending_connects;
pub mod registry_tasks;
mod backoff;
pub mod limits;
#[cfg(test)]
mod tests;

pub use crate::admission::Admission;
pub use crate::admission::AdmitResult;
pub use crate::admission::ReadmittedMessage;
pub use crate::auth_cache::CachedDevice;
pub use crate::credentials::CredentialSource;
pub use crate::outcome::CheckError;
pub use crate::outcome::MessageView;
pub use crate::outcome::Sender;
pub use crate::settings::AdmissionSettings;
pub use crate::settings::OverRate;

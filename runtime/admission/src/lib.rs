//! Which messages are let in: size, topic, rate, and who sent them.
//!
//! The checks come in the order that users script against, and the first that fails names the
//! reason. One function judges (`Admission::judge`), for the stream and for `explain` alike.

mod settings;
mod check;
mod authenticate;
mod credentials;
pub mod envelope;
pub mod auth_cache;
pub mod rate_limits;
pub mod registry;
pub mod unpark;
pub mod pending_messages;
pub mod pending_connects;
pub mod connect;
pub mod registry_tasks;
#[cfg(test)]
mod tests;
pub(crate) mod admission;
pub(crate) mod outcome;
mod retry;
pub mod limits;
pub(crate) mod lookup_request;

pub use crate::admission::Admission;
pub use crate::admission::ReadmittedMessage;
pub use crate::credentials::CredentialSource;
pub use crate::outcome::CheckError;
pub use crate::outcome::MessageView;
pub use crate::outcome::Sender;
pub use crate::settings::AdmissionSettings;

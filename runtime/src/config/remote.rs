//! A configuration from afar: an address that is asked again and again, or a git checkout that something else updates.
//!
//! - A version holds once all of it has come, it is a configuration, and it has passed what `validate` checks.
//! - The last one that held is kept in the data folder. A start without the network, or with a version that is
//!   refused, takes that one.
//! - The data folder must be known before there is a configuration. So it is `TIDEGATE_DATA_DIR` or the default, and
//!   a version that names another one is refused.

pub mod origin;
pub mod version;
pub mod status;
mod checkout;
mod fetch;
pub mod kept;
pub mod follower;

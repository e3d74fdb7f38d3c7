//! The registry of devices: a file, PostgreSQL, or every device of named tenants.

pub mod file;
mod device_records;
pub mod csv;
mod device_table;
mod interned_texts;
pub mod postgres;
pub(crate) mod row;

use std::sync::Arc;

use crate::registry::postgres::PostgresRegistry;

pub use crate::registry::file::FileRegistry;
pub use crate::registry::row::RegistryRow;
pub use crate::registry::row::TokenHash;
pub use crate::registry::row::token_hash;

/// The registry of this gateway.
#[derive(Debug)]
pub enum Registry {
    File(FileRegistry),
    /// Every device of these tenants.
    Open(Vec<String>),
    /// PostgreSQL, asked by `registry_tasks` alone.
    Postgres(Arc<PostgresRegistry>),
}

impl Registry {
    /// The row of a device in a file; None: there is no such device. Never asks PostgreSQL.
    pub fn lookup(&self, tenant: &str, device: &str) -> Option<RegistryRow> {
        match self {
            Self::File(file) => file.lookup(tenant, device),
            Self::Open(_) | Self::Postgres(_) => None,
        }
    }

    /// Grows whenever the registry's content has changed.
    pub fn generation(&self) -> u64 {
        match self {
            Self::File(file) => file.generation(),
            Self::Open(_) | Self::Postgres(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::registry::row::{TokenHash, token_hash};
    use sha2::Digest as _;
    use sha2::Sha256;

    #[test]
    fn only_the_right_token_matches() {
        let hash = TokenHash::parse(Some(&token_hash("tok-1")));
        assert!(hash.matches(&Sha256::digest(b"tok-1").into()));
        assert!(!hash.matches(&Sha256::digest(b"tok-2").into()));
        for column in [None, Some(""), Some("ABC"), Some(&*token_hash("tok-1").to_uppercase())] {
            assert!(!TokenHash::parse(column).matches(&Sha256::digest(b"tok-1").into()), "{column:?}");
        }
        assert_eq!(TokenHash::parse(None), TokenHash::NotSet);
        assert_eq!(TokenHash::parse(Some("")), TokenHash::Unmatchable);
    }
}

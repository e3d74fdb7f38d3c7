//! The names that a message carries through the gateway. Each is its own type, cheap to clone.

use std::fmt;
use std::sync::Arc;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(name: &str) -> Self {
                Self(Arc::from(name))
            }

            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            #[inline]
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A tenant, as the topic names it.
    TenantId
);

name_type!(
    /// A device of one tenant, as the topic names it.
    DeviceId
);

name_type!(
    /// A guest as people see it: `name@version#sha256-12-hex`.
    GuestTag
);

/// The database that a line is written to: its name, and the tenant whose own output it is at. Without
/// one it is at the output that all others share. Two databases of one name at two outputs are two.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseName {
    name: Arc<str>,
    output_of: Option<TenantId>,
}

impl DatabaseName {
    /// A database at the common output.
    pub fn new(name: &str) -> Self {
        Self { name: Arc::from(name), output_of: None }
    }

    /// The database of this name at a tenant's own output, or at the common one.
    pub fn at_output_of(&self, tenant: Option<&TenantId>) -> Self {
        Self { name: self.name.clone(), output_of: tenant.cloned() }
    }

    #[inline]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The tenant whose own output it is at.
    #[inline]
    pub fn output_of(&self) -> Option<&TenantId> {
        self.output_of.as_ref()
    }
}

impl fmt::Debug for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl From<&str> for DatabaseName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

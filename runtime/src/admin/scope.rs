//! The tenants that a caller sees: all, or its own.

use crate::admin::access::{Access, Visitor};
use crate::core::route_key::file_name;

/// The tenants that an answer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// One, by its name and by that of its folder of decoders.
    Tenant {
        name: String,
        folder: String,
    },
}

impl Scope {
    pub fn of(visitor: &Visitor) -> Self {
        match (visitor.access, &visitor.tenant, visitor.tenant_name()) {
            (Access::Tenant, Some(folder), Some(name)) => Self::Tenant { name, folder: folder.to_string() },
            _ => Self::All,
        }
    }

    /// The same, narrowed to one tenant that the caller asks about; `None` if it may not.
    pub fn narrowed(&self, tenant: Option<&str>) -> Option<Self> {
        match tenant {
            None => Some(self.clone()),
            Some(tenant) if self.takes(tenant) => {
                Some(Self::Tenant { name: tenant.to_owned(), folder: file_name(tenant) })
            }
            Some(_) => None,
        }
    }

    /// The one tenant; `None`: all are seen.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Tenant { name, .. } => Some(name),
        }
    }

    pub fn takes(&self, tenant: &str) -> bool {
        self.tenant().is_none_or(|own| own == tenant)
    }

    /// The same by the name of a folder of decoders.
    pub fn takes_folder(&self, of: &str) -> bool {
        match self {
            Self::All => true,
            Self::Tenant { folder, .. } => folder == of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::access::Proof;

    #[test]
    fn a_tenant_sees_itself_alone_by_name_and_by_folder() {
        let visitor = |access, tenant: Option<&str>| Visitor {
            access,
            is_local: true,
            tenant: tenant.map(Into::into),
            proof: Proof::Nothing,
        };
        let scope = Scope::of(&visitor(Access::Tenant, Some("a%20b")));
        assert!(scope.takes("a b") && scope.takes_folder("a%20b") && !scope.takes("c"));
        assert!(!scope.takes_folder("_default"));
        assert_eq!((scope.narrowed(Some("c")), scope.narrowed(None)), (None, Some(scope.clone())));
        for access in [Access::Operator, Access::Reader, Access::Nobody] {
            assert_eq!(Scope::of(&visitor(access, None)), Scope::All);
        }
        assert_eq!(Scope::All.narrowed(Some("a b")), Some(scope));
    }
}

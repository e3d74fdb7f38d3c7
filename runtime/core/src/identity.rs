//! The identity of a device: the tenant and the device in a user name or a certificate.
//!
//! `{tenant}/{device}` is read with the text between the two standing in the name exactly once: a name
//! that could be read in two ways names nobody.

use crate::ids::{DeviceId, TenantId};
use crate::topic::is_topic_name;

/// A tenant and a device of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub tenant: TenantId,
    pub device: DeviceId,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant, self.device)
    }
}

/// The proof of identity that a device brings when it connects.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// The token that it was provisioned with.
    Token(Box<[u8]>),
    /// A certificate that an authority of the operator issued for this name; verified.
    Certificate,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Proof::Token(_) => "Token(hidden)",
            Proof::Certificate => "Certificate",
        })
    }
}

/// The proof by which a device was let in, as it is checked again while its connection lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AcceptedProof {
    /// The SHA-256 of its token.
    Token([u8; 32]),
    Certificate,
}

impl std::fmt::Debug for AcceptedProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AcceptedProof::Token(_) => "Token(hidden)",
            AcceptedProof::Certificate => "Certificate",
        })
    }
}

/// A change of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryChange {
    Device(Identity),
    /// Any device may have changed.
    All,
}

/// The identity that a device claims, with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub identity: Identity,
    pub proof: Proof,
}

/// The reason why a device is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// There is no such device, or the token is not its own: which of both is for the log alone.
    Credentials(&'static str),
    /// The identity is proven, but the device may not connect.
    NotAuthorized(&'static str),
    /// The registry cannot be reached now: the device should connect again.
    Unavailable(&'static str),
}

/// The fault of a template of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameTemplateError {
    #[error("{{tenant}} and {{device}} once each, such as {{tenant}}/{{device}}")]
    Names,
    #[error("text between {{tenant}} and {{device}}, such as the / of {{tenant}}/{{device}}")]
    Between,
}

/// The form of a name: `{tenant}`, `{device}` and text around them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    before: String,
    between: String,
    after: String,
    tenant_first: bool,
}

impl NameTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// It does not name both once, or leaves open where one ends.
    pub fn parse(text: &str) -> Result<Self, NameTemplateError> {
        const NAMES: [&str; 2] = ["{tenant}", "{device}"];
        if NAMES.iter().any(|name| text.matches(name).count() != 1) {
            return Err(NameTemplateError::Names);
        }
        let [tenant, device] = NAMES.map(|name| text.find(name).expect("it stands there once"));
        let (first, second) = (tenant.min(device), tenant.max(device));
        // Both names are of the same length.
        let length = NAMES[0].len();
        let between = &text[first + length..second];
        if between.is_empty() {
            return Err(NameTemplateError::Between);
        }
        Ok(Self {
            before: text[..first].into(),
            between: between.into(),
            after: text[second + length..].into(),
            tenant_first: tenant < device,
        })
    }

    /// The identity in a name; `None` if the name has another form, or could be read in two ways.
    pub fn read(&self, name: &str) -> Option<Identity> {
        let inner = name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        let (first, second) = inner.split_once(self.between.as_str())?;
        // Anywhere else, overlapping too.
        let at = first.len() + 1;
        let again = inner.as_bytes()[at..].windows(self.between.len()).any(|w| w == self.between.as_bytes());
        if again || first.is_empty() || second.is_empty() || name.contains('\0') {
            return None;
        }
        if ![first, second].into_iter().all(is_topic_name) {
            // Its topics would be refused.
            return None;
        }
        let (tenant, device) = if self.tenant_first { (first, second) } else { (second, first) };
        Some(Identity { tenant: TenantId::new(tenant), device: DeviceId::new(device) })
    }

    /// The name of a device.
    pub fn name(&self, identity: &Identity) -> String {
        let (tenant, device) = (identity.tenant.as_str(), identity.device.as_str());
        let (first, second) = if self.tenant_first { (tenant, device) } else { (device, tenant) };
        format!("{}{first}{}{second}{}", self.before, self.between, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(template: &str, name: &str) -> Option<(String, String)> {
        let identity = NameTemplate::parse(template).unwrap().read(name)?;
        Some((identity.tenant.to_string(), identity.device.to_string()))
    }

    fn named(tenant: &str, device: &str) -> Option<(String, String)> {
        Some((tenant.into(), device.into()))
    }

    #[test]
    fn a_name_says_who_by_the_template() {
        assert_eq!(read("{tenant}/{device}", "acme/dev-1"), named("acme", "dev-1"));
        assert_eq!(read("{device}.{tenant}.iot.example", "dev-1.acme.iot.example"), named("acme", "dev-1"));
        assert_eq!(read("spiffe://x/{tenant}/d/{device}", "spiffe://x/acme/d/dev-1"), named("acme", "dev-1"));
        let template = NameTemplate::parse("{device}@{tenant}").unwrap();
        let identity = template.read("dev-1@acme").unwrap();
        assert_eq!(
            (identity.to_string().as_str(), template.name(&identity)),
            ("acme/dev-1", "dev-1@acme".into())
        );
    }

    #[test]
    fn a_name_that_could_be_read_in_two_ways_names_nobody() {
        for name in ["acme", "acme/", "/dev-1", "acme/a/b", "", "/", "acme/dev\0"] {
            assert_eq!(read("{tenant}/{device}", name), None, "{name:?}");
        }
        for name in ["a.b.c.x", "a.b", "a..b.x", "a.b.x.x"] {
            assert_eq!(read("{tenant}.{device}.x", name), None, "{name:?}");
        }
        assert_eq!(read("{tenant}--{device}", "a---b"), None, "a/-b or a-/b");
    }

    #[test]
    fn a_template_that_cannot_tell_them_apart_is_refused() {
        for text in ["", "{tenant}", "{device}", "{tenant}/{device}/{device}", "{tenant}/{tenant}"] {
            assert_eq!(NameTemplate::parse(text), Err(NameTemplateError::Names), "{text}");
        }
        assert_eq!(NameTemplate::parse("{tenant}{device}"), Err(NameTemplateError::Between));
    }
}

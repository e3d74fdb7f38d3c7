//! Who vouches for a device, and whether what it brings is right.

use sha2::{Digest, Sha256};

use crate::admission::Admission;
use crate::auth_cache::CachedDevice;
use crate::envelope::{Envelope, EnvelopeValue};
use crate::registry::TokenHash;
use tidegate_core::detail::Quoted;
use tidegate_core::message::Via;
use tidegate_core::reason::Reason;

/// Who vouches for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `site_id` and `provision_token` in the JSON payload.
    Envelope,
    /// Whoever could publish there was allowed to.
    Broker,
    /// The device proved who it is when it connected to the listener.
    Listener,
}

impl Admission {
    pub(super) fn credentials_of(&self, message_type: &str, via: Via) -> CredentialSource {
        let set = self.credentials_set(message_type);
        match (set, via) {
            // A device that connects straight to us has shown no broker anything, and what a broker
            // brings has proved nothing to us.
            (CredentialSource::Broker, Via::Broker) | (CredentialSource::Listener, Via::Proven) => set,
            _ => CredentialSource::Envelope,
        }
    }

    fn credentials_set(&self, message_type: &str) -> CredentialSource {
        self.settings.credentials_of_type.get(message_type).copied().unwrap_or(self.settings.credentials)
    }

    /// The way by which a message of this topic comes in where its type's credentials are of use: what
    /// is asked of it there is what the operator meant.
    pub fn usual_via(&self, topic: &str) -> Via {
        let places = self.settings.template.matches(topic);
        match places.map(|places| self.credentials_set(&topic[places.message_type])) {
            Some(CredentialSource::Listener) => Via::Proven,
            _ => Via::Broker,
        }
    }
}

/// Whether a message brings the device's own token, or its sender had proved who it is before.
pub(super) fn has_proved(known: &CachedDevice, envelope: Option<&Envelope<'_>>) -> bool {
    match envelope.map(|envelope| &envelope.provision_token) {
        None => true,
        Some(EnvelopeValue::Text(token)) => known.token.matches(&Sha256::digest(token.as_bytes()).into()),
        Some(EnvelopeValue::Missing) => false,
    }
}

/// The checks that need the registry's row, in their order.
pub(super) fn check_device(
    known: &CachedDevice,
    envelope: Option<&Envelope<'_>>,
    require_token: bool,
) -> Result<(), (Reason, String)> {
    if !known.active {
        let detail = format!("the device's status is {}, not \"ACTIVE\"", Quoted(&known.status));
        return Err((Reason::DeviceRevoked, detail));
    }
    let Some(envelope) = envelope else { return Ok(()) };
    if let EnvelopeValue::Text(site) = &envelope.site_id
        && *site != known.site
    {
        let detail = format!("site_id is {}, but the device is registered for another site", Quoted(site));
        return Err((Reason::SiteMismatch, detail));
    }
    if !require_token {
        return Ok(());
    }
    if known.token == TokenHash::NotSet {
        let detail = "the registry has no token for this device: set one first";
        return Err((Reason::TokenNotSet, detail.into()));
    }
    let EnvelopeValue::Text(token) = &envelope.provision_token else {
        let detail = "provision_token is missing: expected the token of the device";
        return Err((Reason::TokenMissing, detail.into()));
    };
    if !known.token.matches(&Sha256::digest(token.as_bytes()).into()) {
        let detail = "provision_token is not the token of the device";
        return Err((Reason::TokenInvalid, detail.into()));
    }
    Ok(())
}

//! The credentials of a device, and the checks of a message against its row.

use crate::auth_cache::CachedDevice;
use crate::claims::Claims;
use crate::envelope::EnvelopeValue;
use crate::proven_tokens::ProvenTokens;
use crate::registry::TokenHash;
use tidegate_core::detail::Quoted;
use tidegate_core::reason::Reason;

/// The party that vouches for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `site_id` and `provision_token` in the JSON payload.
    Envelope,
    /// The broker: it lets only those publish that may.
    Broker,
    /// The listener: the device proved its identity when it connected.
    Listener,
}

/// True if a message brings the device's own token, or needs no envelope.
pub(super) fn has_proved(known: &CachedDevice, claims: &Claims<'_>, proven: &ProvenTokens) -> bool {
    match claims.envelope.as_ref().map(|envelope| &envelope.provision_token) {
        None => true,
        Some(EnvelopeValue::Text(token)) => proven.matches(&known.token, token),
        Some(EnvelopeValue::Missing) => false,
    }
}

/// Runs the checks that need the registry's row, in their order.
pub(super) fn check_device(
    known: &CachedDevice,
    claims: &Claims<'_>,
    require_token: bool,
    proven: &ProvenTokens,
) -> Result<(), (Reason, String)> {
    if !known.active {
        let detail = format!("the device's status is {}, not \"ACTIVE\"", Quoted(&known.status));
        return Err((Reason::DeviceRevoked, detail));
    }
    if let Some(site) = &claims.topic_site
        && *site != known.site
    {
        let site = Quoted(site);
        let detail = format!("the site in the topic is {site}, but the device is registered for another");
        return Err((Reason::SiteMismatch, detail));
    }
    let Some(envelope) = &claims.envelope else { return Ok(()) };
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
    if !proven.matches(&known.token, token) {
        let detail = "provision_token is not the token of the device";
        return Err((Reason::TokenInvalid, detail.into()));
    }
    Ok(())
}

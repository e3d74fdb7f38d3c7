//! Authentication of devices that connect, by the same registry and the same cache as messages.
//!
//! The token is always required here: `registry.require_token` is about the envelope. A stranger gets
//! the same answer for a device that does not exist and for a wrong token.

use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use crate::admission::Admission;
use crate::auth_cache::CachedDevice;
use crate::registry::{Registry, TokenHash};
use tidegate_core::detail::Detail;
use tidegate_core::identity::{AcceptedProof, AuthError, Claim, Identity, Proof, RegistryChange};
use tidegate_core::message::{Received, RefusedMessage, Via};
use tidegate_core::reason::Reason;

const UNKNOWN: AuthError = AuthError::Credentials("UNREGISTERED_DEVICE");

impl Admission {
    /// Authenticates a device that connects. Waits for a registry that must be asked.
    ///
    /// # Errors
    /// The proof is wrong, the device may not connect, or the registry cannot be asked.
    pub async fn authenticate_connect(&self, claim: Claim) -> Result<AcceptedProof, AuthError> {
        let proof = match &claim.proof {
            Proof::Token(token) => AcceptedProof::Token(Sha256::digest(token).into()),
            Proof::Certificate => AcceptedProof::Certificate,
        };
        self.check_connect(&claim.identity, &proof).await.map(|()| proof)
    }

    /// Changes of the registry from now on.
    pub fn registry_changes(&self) -> broadcast::Receiver<RegistryChange> {
        self.changes.subscribe()
    }

    /// Checks a device that connects, or that has connected. Waits for a registry that must be asked.
    ///
    /// # Errors
    /// The same as those of `authenticate_connect`.
    pub async fn check_connect(&self, identity: &Identity, proof: &AcceptedProof) -> Result<(), AuthError> {
        let Identity { tenant, device } = identity;
        let (tenant, device) = (tenant.as_str(), device.as_str());
        let (key, now_s) = (self.device_key(tenant, device), self.now_s());
        let registry = match &self.registry {
            Registry::Open(tenants) => {
                return match proof {
                    AcceptedProof::Certificate if tenants.iter().any(|open| open == tenant) => Ok(()),
                    AcceptedProof::Certificate => Err(AuthError::NotAuthorized("its tenant is not open")),
                    AcceptedProof::Token(_) => Err(AuthError::Credentials("an open registry has no tokens")),
                };
            }
            Registry::File(_) => {
                if let Some(known) = self.cache.get(key, tenant, device, now_s) {
                    return check(&known, proof);
                }
                let row = self.registry.lookup(tenant, device).ok_or(UNKNOWN)?;
                let known = self.cache_row(tenant, device, row, true);
                let verdict = check(&known, proof);
                self.cache.insert(key, known, now_s);
                return verdict;
            }
            Registry::Postgres(registry) => registry,
        };
        if let Some(known) = self.cache.get(key, tenant, device, now_s) {
            return check(&known, proof);
        }
        if self.cache.is_absent(key, tenant, device, now_s) {
            return Err(UNKNOWN);
        }
        if registry.is_down()
            && let Some(known) = self.cache.stale(key, tenant, device, now_s, registry.settings.stale_max_s)
        {
            return check(&known, proof);
        }
        let lookup = self.connects.enqueue(key, identity);
        let lookup = lookup.ok_or(AuthError::Unavailable("too many devices wait for the registry"))?;
        match lookup.await {
            Ok(Some(Some(known))) => check(&known, proof),
            Ok(Some(None)) => Err(UNKNOWN),
            Ok(None) | Err(_) => {
                Err(AuthError::Unavailable("the registry is down, and the device is not in the cache"))
            }
        }
    }

    /// Refuses a message of a device that has proved its identity. It counts as that device's,
    /// whatever its topic names.
    pub fn refuse_of(
        &self,
        message: Received,
        sender: &Identity,
        reason: Reason,
        detail: Detail,
    ) -> RefusedMessage {
        let tenant = self.known_tenant(sender.tenant.as_str());
        tenant.account.receive(1);
        // A replay proves nothing for that topic.
        let message = Received { via: Via::Listener, ..message };
        let refused = RefusedMessage::new(message, reason, detail, tenant.account.clone()).with_sender(
            Some(sender.tenant.clone()),
            Some(sender.device.clone()),
            true,
        );
        let refused = refused.with_known(true);
        if let Registry::Postgres(registry) = &self.registry {
            registry.refusals.record(&refused, None);
        }
        refused
    }
}

/// Checks the token first: only its owner learns the device's status.
fn check(known: &CachedDevice, proof: &AcceptedProof) -> Result<(), AuthError> {
    match proof {
        AcceptedProof::Token(_) if known.token == TokenHash::NotSet => {
            return Err(AuthError::Credentials("TOKEN_NOT_SET_IN_REGISTRY"));
        }
        AcceptedProof::Token(token) if !known.token.matches(token) => {
            return Err(AuthError::Credentials("TOKEN_INVALID"));
        }
        AcceptedProof::Token(_) | AcceptedProof::Certificate => {}
    }
    if !known.active {
        return Err(AuthError::NotAuthorized("the device's status is not ACTIVE"));
    }
    Ok(())
}

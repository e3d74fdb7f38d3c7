//! The open connections of devices that proved who they are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::listener::client_certificate::ClientCertificate;
use crate::listener::close::{CloseInfo, CloseReason};
use tidegate_core::identity::{AcceptedProof, Identity};

/// The end of a connection that its device has not asked for.
#[derive(Debug)]
pub struct Revocation {
    why: OnceLock<(CloseReason, &'static str)>,
    wake: Arc<Notify>,
}

impl Revocation {
    /// `wake` is notified when the connection is to end.
    pub fn new(wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { why: OnceLock::new(), wake })
    }

    /// Ends the connection.
    pub fn end(&self, reason: CloseReason, detail: &'static str) {
        if self.why.set((reason, detail)).is_ok() {
            self.wake.notify_one();
        }
    }

    /// The end of the connection, if it is to end.
    pub fn ended(&self) -> Option<CloseInfo> {
        self.why.get().map(|&(reason, detail)| CloseInfo::new(reason, detail))
    }
}

/// A connection, as it is checked again.
#[derive(Clone, Debug)]
pub struct ProvenConnection {
    pub identity: Identity,
    pub proof: AcceptedProof,
    certificate: Option<ClientCertificate>,
    pub revocation: Arc<Revocation>,
}

/// The open connections of proven devices.
#[derive(Debug, Default)]
pub struct ProvenConnections(Mutex<HashMap<u64, ProvenConnection>>);

impl ProvenConnections {
    /// Adds a connection until the guard is dropped.
    pub fn add(
        self: &Arc<Self>,
        connection: u64,
        identity: &Identity,
        proof: AcceptedProof,
        certificate: Option<&ClientCertificate>,
        revocation: &Arc<Revocation>,
    ) -> ProvenGuard {
        let proven = ProvenConnection {
            identity: identity.clone(),
            proof,
            certificate: certificate.cloned(),
            revocation: revocation.clone(),
        };
        self.0.lock().insert(connection, proven);
        ProvenGuard { connections: self.clone(), connection }
    }

    /// The connections of some devices; None: all.
    pub fn of(&self, devices: Option<&HashSet<Identity>>) -> Vec<ProvenConnection> {
        let all = self.0.lock();
        let chosen = all.values().filter(|one| devices.is_none_or(|some| some.contains(&one.identity)));
        chosen.cloned().collect()
    }

    /// Ends those whose certificate does not hold any more.
    pub fn end_by_certificate(&self, now: SystemTime, is_revoked: impl Fn(&ClientCertificate) -> bool) {
        for one in self.0.lock().values() {
            let Some(certificate) = &one.certificate else { continue };
            if certificate.not_after <= now {
                let detail = "its client certificate has expired";
                one.revocation.end(CloseReason::CertificateExpired, detail);
            } else if is_revoked(certificate) {
                let detail = "its client certificate is in listen.client_crl_file";
                one.revocation.end(CloseReason::Revoked, detail);
            }
        }
    }
}

/// One such connection; dropping it takes it out.
#[derive(Debug)]
pub struct ProvenGuard {
    connections: Arc<ProvenConnections>,
    connection: u64,
}

impl Drop for ProvenGuard {
    fn drop(&mut self) {
        self.connections.0.lock().remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn certificate(not_after: SystemTime, serial: u8) -> ClientCertificate {
        ClientCertificate { identity: Err(String::new()), not_after, id: (vec![1], vec![serial]) }
    }

    #[test]
    fn a_certificate_that_ends_or_is_revoked_ends_its_connection_and_no_other() {
        let connections = Arc::new(ProvenConnections::default());
        let identity = Identity { tenant: "acme".into(), device: "d".into() };
        let now = SystemTime::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(3600));
        let added: Vec<_> = [certificate(soon, 1), certificate(later, 2), certificate(later, 3)]
            .iter()
            .zip(0..)
            .map(|(certificate, connection)| {
                let revocation = Revocation::new(Arc::default());
                let proof = AcceptedProof::Certificate;
                let guard = connections.add(connection, &identity, proof, Some(certificate), &revocation);
                (guard, revocation)
            })
            .collect();
        let ended = || added.iter().map(|(_, one)| one.ended().map(|end| end.reason)).collect::<Vec<_>>();
        connections.end_by_certificate(now, |_| false);
        assert_eq!(ended(), [None; 3]);
        connections.end_by_certificate(now + Duration::from_secs(2), |one| one.id.1 == [2]);
        let expected = [Some(CloseReason::CertificateExpired), Some(CloseReason::Revoked), None];
        assert_eq!(ended(), expected);
        drop(added);
        assert!(connections.of(None).is_empty());
    }
}

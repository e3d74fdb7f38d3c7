//! The end of connections whose proof does not hold any more: the registry says otherwise, or the certificate
//! has expired or was revoked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::timeout;

use crate::limits;
use crate::listener::close::CloseReason;
use crate::listener::context::ListenerContext;
use crate::sink::MessageSink;
use tidegate_core::identity::{AuthError, RegistryChange};

/// Ends connections within a second of the registry's word or of the end of their certificate, for ever.
pub(crate) async fn end_revoked<I: MessageSink>(context: Arc<ListenerContext<I>>) {
    let mut changes = context.sink.registry_changes();
    let mut tick = tokio::time::interval(Duration::from_millis(limits::REVOCATION_POLL_MS));
    loop {
        let first = tokio::select! {
            _ = tick.tick() => {
                let tls = context.tls.as_ref();
                context.proven.end_by_certificate(SystemTime::now(), |certificate| {
                    tls.is_some_and(|tls| tls.is_revoked(&certificate.id))
                });
                continue;
            }
            change = changes.recv() => change,
        };
        let mut devices = HashSet::new();
        let mut is_all = false;
        let mut change = Some(first);
        while let Some(next) = change.take() {
            match next {
                Ok(RegistryChange::Device(identity)) => drop(devices.insert(identity)),
                Ok(RegistryChange::All) | Err(RecvError::Lagged(_)) => is_all = true,
                // Nobody tells of changes any more.
                Err(RecvError::Closed) => return std::future::pending().await,
            }
            change = match changes.try_recv() {
                Ok(next) => Some(Ok(next)),
                Err(TryRecvError::Lagged(n)) => Some(Err(RecvError::Lagged(n))),
                Err(_) => None,
            };
        }
        let connections = context.proven.of((!is_all).then_some(&devices));
        let sink = &context.sink;
        stream::iter(connections)
            .for_each_concurrent(limits::RECHECKS_AT_ONCE, |one| async move {
                let asking = Duration::from_secs(limits::CONNECT_REGISTRY_WAIT_S);
                match timeout(asking, sink.recheck(&one.identity, &one.proof)).await {
                    // A registry that cannot be asked has not said anything.
                    Err(_) | Ok(Ok(()) | Err(AuthError::Unavailable(_))) => {}
                    Ok(Err(AuthError::Credentials(why) | AuthError::NotAuthorized(why))) => {
                        one.revocation.end(CloseReason::Revoked, why);
                    }
                }
            })
            .await;
    }
}

//! The admin side's thread, with a runtime of its own: scrapes, listings and stalled clients cost the
//! threads of the stream nothing.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::admin::access::{Peer, network};
use crate::core::worker::{self, Priority};
use crate::limits::{
    ADMIN_ADDRESS_SHARE, ADMIN_BLOCKING_THREADS_MAX, ADMIN_FAULT_SAID_EVERY_S, ADMIN_HEADER_TIMEOUT_S,
};
use crate::source::listener::CertificateReloader;

/// The pause after an accept that failed: the process has no file left, say.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// The limits of the admin side, and its certificate.
#[derive(Clone, Debug)]
pub struct AdminLimits {
    pub connections_max: usize,
    /// None: no TLS.
    pub tls: Option<Arc<CertificateReloader>>,
}

/// The thread, until it is stopped or dropped.
#[derive(Debug)]
pub struct AdminServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Serves `router` to all who connect to `listener`.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(listener: std::net::TcpListener, router: Router, limits: AdminLimits) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("admin-files")
            .max_blocking_threads(ADMIN_BLOCKING_THREADS_MAX)
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = worker::start("admin", Priority::Normal, move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, router, limits) => {}
                    // Also when nobody is left who could stop it.
                    _ = stopped => {}
                }
            });
            // Reading for an answer that nobody gets is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for AdminServer {
    /// Ends all connections and the thread.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there ends the process.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, router: Router, limits: AdminLimits) {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let addresses = Arc::<Mutex<HashMap<IpAddr, usize>>>::default();
    let mut said: Option<Instant> = None;
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_client(&error) => continue,
            Err(error) => {
                if said.is_none_or(|said| said.elapsed() >= Duration::from_secs(ADMIN_FAULT_SAID_EVERY_S)) {
                    said = Some(Instant::now());
                    tracing::error!(%error, "the admin side cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Some(share) = AddressShare::take(&addresses, peer.ip(), limits.connections_max) else { continue };
        let (router, tls) = (router.clone().layer(Extension(Peer(peer))), limits.tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_connection(stream, router).await,
                Some(tls) => {
                    let handshake = tls.acceptor().accept(stream);
                    match timeout(Duration::from_secs(ADMIN_HEADER_TIMEOUT_S), handshake).await {
                        Ok(Ok(stream)) => serve_connection(stream, router).await,
                        Ok(Err(error)) => {
                            tracing::debug!(%peer, %error, "a TLS handshake with the admin side failed")
                        }
                        Err(_) => tracing::debug!(%peer, "a TLS handshake with the admin side took too long"),
                    }
                }
            }
            drop((permit, share));
        });
    }
}

/// One connection of an address, which may have a part of all: a stranger must not keep operators out.
/// Loopback may have all of them.
struct AddressShare {
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl AddressShare {
    fn take(
        addresses: &Arc<Mutex<HashMap<IpAddr, usize>>>,
        address: IpAddr,
        connections_max: usize,
    ) -> Option<Self> {
        let address = network(address);
        let mut counts = addresses.lock();
        let count = counts.entry(address).or_default();
        if !address.is_loopback() && *count >= (connections_max / ADMIN_ADDRESS_SHARE).max(1) {
            return None;
        }
        *count += 1;
        Some(Self { addresses: addresses.clone(), address })
    }
}

impl Drop for AddressShare {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(ADMIN_HEADER_TIMEOUT_S));
    let service = TowerToHyperService::new(router);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the admin side has ended");
    }
}

/// True for a connection that was gone before it was accepted.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_part_of_the_connections_and_loopback_all() {
        let addresses = Arc::default();
        let take = |address: &str| AddressShare::take(&addresses, address.parse().unwrap(), 80);
        let of_one: Vec<_> = (0..100).filter_map(|_| take("10.0.0.1")).collect();
        assert_eq!(of_one.len(), 80 / ADMIN_ADDRESS_SHARE);
        assert!(take("10.0.0.2").is_some());
        assert_eq!((0..80).filter_map(|_| take("::ffff:127.0.0.1")).collect::<Vec<_>>().len(), 80);
        drop(of_one);
        assert!(take("10.0.0.1").is_some());
        assert!(addresses.lock().is_empty());
    }
}

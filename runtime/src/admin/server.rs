//! The admin side's thread, with a runtime of its own: scrapes, listings and stalled clients cost the
//! threads of the stream nothing.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};

use crate::core::worker::{self, Priority};
use crate::limits::{ADMIN_BLOCKING_THREADS_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_TIMEOUT_S};

/// The pause after an accept that failed: the process has no file left, say.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

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
    pub fn start(listener: std::net::TcpListener, router: Router) -> io::Result<Self> {
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
                    () = serve(listener, router) => {}
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

async fn serve(listener: TcpListener, router: Router) {
    let connections = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if is_of_client(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "the admin side cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(ADMIN_HEADER_TIMEOUT_S));
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the admin side has ended");
            }
            drop(permit);
        });
    }
}

/// True for a connection that was gone before it was accepted.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

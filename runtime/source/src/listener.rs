//! The listener for devices that connect to us: an MQTT server side for publishers only, 3.1.1 and 5.
//!
//! CONNECT, PUBLISH at QoS 0 and 1, PINGREQ, DISCONNECT. A PUBACK says that the message's outcome
//! is durable; in MQTT 5 it also names the outcome. It is no broker: a SUBSCRIBE is refused filter by
//! filter, QoS 2 ends the connection, a will is ignored, a retain flag means nothing. A session that
//! outlives its connection keeps only the messages that may come again (`sessions`).
//!
//! It trusts nobody, and bounds each resource that a stranger can take:
//! - time for the TLS handshake, time to CONNECT, time a packet, bytes a packet (`limits`);
//! - unfinished bytes that came, in total, an address and a tenant (`packet_memory`);
//! - connections in total, an address and a tenant, connects a second, CONNECTs that fail
//!   (`connection_table`, `connect_limits`);
//! - PUBLISHes without a PUBACK, and PUBACKs that are not read.
//!
//! A client id is no credential: a device that names another's id takes its connection over, as the
//! protocol wants it [MQTT-3.1.4-2]. It can do so only within its own tenant if devices authenticate, by a
//! password or a certificate (`handshake`).

mod context;
mod drain;
mod proxy_header;
mod connection;
mod handshake;
mod sessions;
mod frame_reader;
mod proven_connections;
mod revocations;
mod rate_queue;
mod packet_memory;
mod connection_table;
mod connect_limits;
mod counters;
mod close;
mod client_certificate;
mod certificate_expiry;
mod tls;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::limits;
use crate::listener::client_certificate::ClientCertificate;
use crate::listener::close::CloseInfo;
use crate::listener::connection_table::{ConnectionPermit, ConnectionPlace, ConnectionTable, FaultLog};
use crate::listener::context::ListenerContext;
use crate::listener::proxy_header::ProxyHeaderError;
use crate::listener::revocations::end_revoked;
use crate::listener::sessions::DeviceSessions;
use crate::listener::socket::DeviceSocket;
use crate::sink::MessageSink;
use crate::status::{SourceStatus, StopSignal, stopped};
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::worker::vital;

pub use crate::listener::certificate_expiry::first_expiry;
pub use crate::listener::close::CloseReason;
pub use crate::listener::connect_limits::ConnectLimitSettings;
pub use crate::listener::context::CredentialPolicy;
pub use crate::listener::context::ListenerSettings;
pub use crate::listener::counters::ListenerCounters;
pub use crate::listener::drain::ListenerDrain;
pub use crate::listener::tls::CertificateReloader;
pub use crate::listener::tls::ClientCertificates;
pub use crate::listener::tls::TlsFileError;
pub use crate::listener::tls::TlsKeys;
pub use crate::listener::tls::TlsSettings;

/// Connections that wait to be accepted: a site full of devices comes at once after a power cut.
const BACKLOG: i32 = 4096;

/// Seconds of silence on the wire after which TCP itself asks whether the peer lives: for devices
/// that chose no keep-alive.
const TCP_KEEP_ALIVE_S: u64 = 120;

#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error("cannot listen on {address}: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsFileError),
}

/// A socket that devices connect to.
pub struct Listener<I> {
    socket: TcpListener,
    address: SocketAddr,
    context: Arc<ListenerContext<I>>,
    status: watch::Sender<SourceStatus>,
}

impl<I: MessageSink> Listener<I> {
    /// Opens the socket; connections wait in it until `run`. To be called within a runtime.
    ///
    /// # Errors
    /// The address cannot be listened on, or the certificate cannot be used.
    pub fn bind(
        settings: ListenerSettings,
        window: Arc<ReceiveWindow>,
        sink: Arc<I>,
    ) -> Result<Self, ListenerError> {
        let asked = settings.address;
        let tls = settings.tls.clone().map(CertificateReloader::open).transpose()?.map(Arc::new);
        let socket = open(asked).map_err(|error| ListenerError::Bind { address: asked, error })?;
        let address = socket.local_addr().map_err(|error| ListenerError::Bind { address: asked, error })?;
        let connections = ConnectionTable::new(
            settings.connections_max,
            settings.connections_per_address_max,
            settings.ceilings,
        );
        let status = SourceStatus { connected: true, subscribed: true, last_error: None };
        let sessions = DeviceSessions::default();
        let (proven, drain) = (Arc::default(), Arc::default());
        let context =
            Arc::new(ListenerContext { settings, window, sink, connections, tls, sessions, proven, drain });
        Ok(Self { socket, address, context, status: watch::Sender::new(status) })
    }

    /// The address that the socket is bound to; its port is the real one if port 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    pub fn counters(&self) -> Arc<ListenerCounters> {
        self.context.connections.counters.clone()
    }

    /// The drain of its connections.
    pub fn drain(&self) -> Arc<ListenerDrain> {
        self.context.drain.clone()
    }

    /// The certificate in service, which the caller refreshes from time to time; None without TLS.
    pub fn tls(&self) -> Option<Arc<CertificateReloader>> {
        self.context.tls.clone()
    }

    /// Accepts until the order to stop. Then it takes no more, sends the PUBACKs of the messages that settle
    /// before the deadline, and closes every connection.
    pub async fn run(self, mut stop: StopSignal) {
        info!(address = %self.address, tls = self.context.tls.is_some(), "listening");
        let mut beside = JoinSet::new();
        beside.spawn(vital("listener-revocations", end_revoked(self.context.clone())));
        let (drain, orders) = (self.context.drain.clone(), stop.clone());
        beside.spawn(vital("listener-stop", async move { drain.follow(orders).await }));
        let mut faults = FaultLog::default();
        let deadline = loop {
            tokio::select! {
                biased;
                deadline = stopped(&mut stop) => break deadline,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        self.status.send_if_modified(|status| status.last_error.take().is_some());
                        self.admit(stream, peer);
                    }
                    Err(error) => {
                        // The peer gave up already, or we are out of descriptors or memory: others
                        // will leave.
                        if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                            if let Some(withheld) = faults.record() {
                                warn!(%error, withheld, "cannot accept a connection: the listener pauses until others leave");
                            }
                            self.status.send_modify(|status| status.last_error = Some(format!("cannot accept: {error}")));
                            sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
                        }
                    }
                },
            }
        };
        drop(self.socket);
        self.status.send_replace(SourceStatus::default());
        // Tasks keep the deadline themselves; a moment more for their last write.
        let _ = timeout_at(deadline + Duration::from_secs(1), self.context.connections.until_empty()).await;
        info!(address = %self.address, "closed");
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let connections = &self.context.connections;
        let entry = match self.context.settings.is_proxy(peer.ip()) {
            true => connections.reserve().map(Entry::Proxied),
            false => connections.admit(peer.ip()).map(Entry::Direct),
        };
        let entry = match entry {
            Ok(entry) => entry,
            Err(reason) => {
                if let Some(withheld) = connections.record_close(reason, false) {
                    warn!(%peer, reason = reason.name(), withheld, "connection refused");
                }
                return;
            }
        };
        let charge = match self.context.settings.charge_connection() {
            Ok(charge) => charge,
            Err(over) => {
                if let Some(withheld) = connections.record_close(CloseReason::Buffers, false) {
                    let reason = CloseReason::Buffers.name();
                    warn!(%peer, reason, detail = %over, withheld, "connection refused");
                }
                return;
            }
        };
        // A device is not refused for the failure of either.
        let _ = stream.set_nodelay(true);
        let keep_alive = TcpKeepalive::new().with_time(Duration::from_secs(TCP_KEEP_ALIVE_S));
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
        let (context, mut stop) = (self.context.clone(), self.context.drain.orders());
        tokio::spawn(async move {
            let began = Instant::now();
            let mut stream = stream;
            let (peer, permit, end) = match enter(&mut stream, peer, entry, &mut stop).await {
                (peer, Ok(permit)) => {
                    let end = serve(stream, &permit, &context, stop).await;
                    (peer, Some(permit), end)
                }
                (peer, Err(end)) => (peer, None, end),
            };
            let (reason, detail) = (end.reason.name(), end.detail.as_str());
            match (context.connections.record_close(end.reason, end.device.is_some()), &end.device) {
                (Some(withheld), Some((device, client_id))) => {
                    warn!(%peer, %device, client_id, reason, detail, withheld, "connection closed");
                }
                (Some(withheld), None) => warn!(%peer, reason, detail, withheld, "connection closed"),
                (None, Some((device, client_id))) => {
                    let lasted_s = began.elapsed().as_secs();
                    debug!(%peer, %device, client_id, reason, detail, lasted_s, "connection closed");
                }
                (None, None) => {
                    debug!(%peer, reason, detail, lasted_s = began.elapsed().as_secs(), "connection closed")
                }
            }
            drop((permit, charge));
        });
    }
}

/// A connection before its first byte.
enum Entry {
    Direct(ConnectionPermit),
    /// A balancer's: the device's address comes in a PROXY header.
    Proxied(ConnectionPlace),
}

/// Admits a connection, after its PROXY header if it has one. Gives the peer that it counts for.
async fn enter(
    stream: &mut TcpStream,
    peer: SocketAddr,
    entry: Entry,
    stop: &mut StopSignal,
) -> (SocketAddr, Result<ConnectionPermit, CloseInfo>) {
    let place = match entry {
        Entry::Direct(permit) => return (peer, Ok(permit)),
        Entry::Proxied(place) => place,
    };
    let most = Duration::from_secs(limits::LISTENER_CONNECT_TIMEOUT_S);
    let header = tokio::select! {
        biased;
        _ = stopped(stop) => return (peer, Err(CloseReason::Stopped.into())),
        // On the heap: a connection's task need not be as large.
        header = timeout(most, Box::pin(proxy_header::read(stream))) => header,
    };
    let fault = |detail: String| (peer, Err(CloseInfo::new(CloseReason::ProxyHeader, detail)));
    let device = match header {
        // Its port at the balancer is not told apart.
        Ok(Ok(named)) => named.map_or(peer, |address| SocketAddr::new(address, 0)),
        // A balancer that looks for an open port closes it at once.
        Ok(Err(ProxyHeaderError::Ended(_))) => return (peer, Err(CloseReason::Left.into())),
        Ok(Err(error)) => return fault(error.to_string()),
        Err(_) => return fault(format!("no PROXY header within {} s", most.as_secs())),
    };
    (device, place.admit(device.ip()).map_err(CloseInfo::from))
}

/// Serves a connection from its first byte, or its handshake, to its end.
async fn serve<I: MessageSink>(
    stream: TcpStream,
    permit: &ConnectionPermit,
    context: &ListenerContext<I>,
    mut stop: StopSignal,
) -> CloseInfo {
    let Some(tls) = &context.tls else {
        return connection::serve(DeviceSocket::Plain(stream), None, permit, context, stop).await;
    };
    let most = Duration::from_secs(limits::TLS_HANDSHAKE_TIMEOUT_S);
    let shaken = tokio::select! {
        biased;
        _ = stopped(&mut stop) => return CloseReason::Stopped.into(),
        // On the heap: a plain connection's task need not be as large as a handshake.
        shaken = timeout(most, Box::pin(tls.acceptor().accept(stream))) => shaken,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => Box::new(stream),
        Ok(Err(error)) => return CloseInfo::new(CloseReason::Handshake, handshake_fault(&error)),
        Err(_) => {
            return CloseInfo::new(
                CloseReason::Handshake,
                format!("not finished within {} s", most.as_secs()),
            );
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate =
        shown.map(|certificate| ClientCertificate::read(certificate, &context.settings.certificate_name));
    // A session that is resumed is not verified again.
    if let Some(certificate) = &certificate
        && (certificate.not_after <= SystemTime::now() || tls.is_revoked(&certificate.id))
    {
        return CloseInfo::new(CloseReason::Handshake, "the client certificate has expired or was revoked");
    }
    connection::serve(DeviceSocket::Tls(stream), certificate, permit, context, stop).await
}

/// The fault of a TLS handshake, for the log.
fn handshake_fault(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("it does not speak TLS, and this port speaks nothing else: {error}")
        }
        _ => error.to_string(),
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_send_buffer_size(limits::LISTENER_SEND_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

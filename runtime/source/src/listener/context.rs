use std::net::SocketAddr;
use std::sync::Arc;

use crate::listener::connect_limits::ConnectLimitSettings;
use crate::listener::connection_table::ConnectionTable;
use crate::listener::sessions::DeviceSessions;
use crate::listener::tls::{CertificateReloader, TlsSettings};
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::identity::NameTemplate;
use tidegate_core::topic::TopicTemplate;

/// What a device must prove when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialPolicy {
    /// Nothing; what it brings is read over.
    Nothing,
    /// Who brings credentials must bring good ones; who brings none has proved nothing.
    IfAny,
    Always,
}

/// What a listener needs to know.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    pub address: SocketAddr,
    pub connections_max: usize,
    /// Of one address; it does not hold for loopback. Generous, because a site behind one router
    /// is one address.
    pub connections_per_address_max: usize,
    /// Payloads over it are passed on with their first KiB and their true size.
    pub payload_bytes_max: usize,
    pub ceilings: ConnectLimitSettings,
    pub asks: CredentialPolicy,
    /// How a user name says who a device is.
    pub username: NameTemplate,
    /// How a name in a client certificate does.
    pub certificate_name: NameTemplate,
    /// How a topic names tenant and device: a device that has proved who it is may publish to its own.
    pub topics: TopicTemplate,
    /// None: no TLS.
    pub tls: Option<TlsSettings>,
}

/// What all connections share.
pub(crate) struct ListenerContext<I> {
    pub(crate) settings: ListenerSettings,
    pub(crate) window: Arc<ReceiveWindow>,
    pub(crate) intake: Arc<I>,
    pub(crate) doors: Arc<ConnectionTable>,
    pub(crate) tls: Option<Arc<CertificateReloader>>,
    pub(crate) sessions: DeviceSessions,
}

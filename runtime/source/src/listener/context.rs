//! The settings of a listener, and the context that its connections share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::limits::{CONNECTION_BYTES, TLS_CONNECTION_BYTES};
use crate::listener::connect_limits::ConnectLimitSettings;
use crate::listener::connection_table::ConnectionTable;
use crate::listener::drain::ListenerDrain;
use crate::listener::proven_connections::ProvenConnections;
use crate::listener::sessions::DeviceSessions;
use crate::listener::tls::{CertificateReloader, TlsSettings};
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::identity::NameTemplate;
use tidegate_core::ids::TenantId;
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::OverBudget;
use tidegate_core::tenant::table::Tenants;
use tidegate_core::topic::TopicTemplates;

/// The credentials that a device must bring when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialPolicy {
    /// None; credentials that it brings are ignored.
    Nothing,
    /// A device that brings credentials must bring good ones; one that brings none has proved nothing.
    IfAny,
    Always,
}

/// The settings of a listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    pub address: SocketAddr,
    pub connections_max: usize,
    /// Connections of one address; there is no limit for loopback. Generous, because a site behind one router
    /// is one address.
    pub connections_per_address_max: usize,
    /// The networks of balancers, whose connections begin with a PROXY header.
    pub proxies: Vec<IpNet>,
    /// Payloads over it are passed on with their first KiB and their true size.
    pub payload_bytes_max: usize,
    pub ceilings: ConnectLimitSettings,
    pub asks: CredentialPolicy,
    /// The form of a user name that names a device.
    pub username: NameTemplate,
    /// The form of a name in a client certificate that names a device.
    pub certificate_name: NameTemplate,
    /// The form of a topic that names tenant and device: an authenticated device may publish to its own.
    pub topics: Arc<TopicTemplates>,
    /// None: no TLS.
    pub tls: Option<TlsSettings>,
    /// The tenants whose memory budgets are charged for unfinished packets; `None`: none are.
    pub tenants: Option<Arc<Tenants>>,
}

impl ListenerSettings {
    /// True for the address of a balancer.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }

    /// A tenant's memory budget.
    pub(crate) fn memory(&self, tenant: &TenantId) -> Option<Budget> {
        Some(self.tenants.as_ref()?.budgets_of(tenant.as_str()).memory)
    }

    /// Charges a new connection to the gateway's memory budget.
    pub(crate) fn charge_connection(&self) -> Result<Option<Charge>, OverBudget> {
        let Some(tenants) = &self.tenants else { return Ok(None) };
        let bytes = if self.tls.is_some() { TLS_CONNECTION_BYTES } else { CONNECTION_BYTES };
        let memory = &tenants.budgets().gateway().memory;
        memory.try_charge(BudgetKind::Connections, bytes).map(Some)
    }
}

/// The context that all connections of a listener share.
pub(crate) struct ListenerContext<I> {
    pub(crate) settings: ListenerSettings,
    pub(crate) window: Arc<ReceiveWindow>,
    pub(crate) sink: Arc<I>,
    pub(crate) connections: Arc<ConnectionTable>,
    pub(crate) tls: Option<Arc<CertificateReloader>>,
    pub(crate) sessions: DeviceSessions,
    pub(crate) proven: Arc<ProvenConnections>,
    pub(crate) drain: Arc<ListenerDrain>,
}

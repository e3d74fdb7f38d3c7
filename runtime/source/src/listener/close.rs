//! The reasons for which a connection of the listener ends.

use std::io;

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;

use crate::mqtt::error::PacketError;
use crate::mqtt::reason_codes::disconnect_code;
use tidegate_core::identity::Identity;

macro_rules! endings {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// The reason for which a connection ended, or was not accepted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CloseReason { $($(#[$doc])* $name,)* }

        impl CloseReason {
            pub const ALL: &'static [CloseReason] = &[$(CloseReason::$name,)*];

            /// The label of metrics.
            pub fn name(self) -> &'static str {
                match self { $(CloseReason::$name => $label,)* }
            }
        }
    };
}

endings! {
    /// It sent DISCONNECT, or closed its socket.
    Left = "left",
    Lost = "lost",
    Stopped = "stopped",
    /// Another connection came with its client id.
    TakenOver = "taken_over",
    KeepAlive = "keep_alive",
    ConnectionsMax = "connections_max",
    AddressMax = "address_max",
    ConnectTimeout = "connect_timeout",
    PacketTimeout = "packet_timeout",
    /// The first packet was no CONNECT, a second CONNECT came, or one that only servers send.
    Unexpected = "unexpected_packet",
    Malformed = "malformed",
    ProtocolLevel = "protocol_level",
    ClientId = "client_id",
    ExactlyOnce = "qos_2",
    SlowReader = "slow_reader",
    /// A balancer's connection did not begin with a PROXY header.
    ProxyHeader = "proxy_header",
    /// The TLS handshake failed, or took too long.
    Handshake = "tls_handshake",
    /// An MQTT 5 authentication method; none is supported.
    AuthenticationMethod = "authentication_method",
    /// No credentials though they are required, or wrong ones.
    BadCredentials = "bad_credentials",
    /// A device that is known and may not connect.
    NotAuthorized = "not_authorized",
    /// The registry could not be asked about it.
    Unavailable = "registry_unavailable",
    /// Too many connects a second of its address.
    ConnectRate = "connect_rate",
    /// Too many CONNECTs like it have failed: its credentials were not checked.
    FailedConnects = "failed_connects",
    TenantMax = "tenant_max",
    /// A PUBLISH to another device's topic, in the protocol that has no other answer to it.
    NotOwnTopic = "not_own_topic",
    /// Unfinished packets hold too much memory, and this connection held most of it.
    Buffers = "buffers_max",
    /// One of its messages could not be taken, and is to be sent again.
    Unsettled = "unsettled",
    /// The registry, or the list of revoked certificates, says that it may not stay.
    Revoked = "revoked",
    CertificateExpired = "certificate_expired",
    /// A will at QoS 2.
    WillQos = "will_qos",
}

impl CloseReason {
    /// True for a reason that is logged as a warning.
    pub fn is_fault(self) -> bool {
        !matches!(self, CloseReason::Left | CloseReason::Lost | CloseReason::Stopped | CloseReason::KeepAlive)
    }
}

/// The end of a connection, with its detail for the log.
#[derive(Debug)]
pub struct CloseInfo {
    pub reason: CloseReason,
    pub detail: String,
    /// The reason code of the DISCONNECT to a device that speaks MQTT 5.
    pub code: DisconnectReasonCode,
    /// The last packet to it may be cut off: nothing can follow.
    pub cut: bool,
    /// The device and its client id, if it had proved who it is.
    pub device: Option<(Identity, String)>,
}

impl CloseInfo {
    pub fn new(reason: CloseReason, detail: impl Into<String>) -> Self {
        let code = match reason {
            CloseReason::TakenOver => DisconnectReasonCode::SessionTakenOver,
            CloseReason::KeepAlive => DisconnectReasonCode::KeepAliveTimeout,
            CloseReason::Stopped => DisconnectReasonCode::ServerShuttingDown,
            CloseReason::ExactlyOnce => DisconnectReasonCode::QoSNotSupported,
            CloseReason::Malformed => DisconnectReasonCode::MalformedPacket,
            CloseReason::Unexpected => DisconnectReasonCode::ProtocolError,
            CloseReason::Buffers => DisconnectReasonCode::QuotaExceeded,
            CloseReason::Revoked | CloseReason::CertificateExpired => DisconnectReasonCode::NotAuthorized,
            _ => DisconnectReasonCode::UnspecifiedError,
        };
        Self { reason, detail: detail.into(), code, cut: false, device: None }
    }
}

impl From<CloseReason> for CloseInfo {
    fn from(reason: CloseReason) -> Self {
        Self::new(reason, String::new())
    }
}

impl From<io::Error> for CloseInfo {
    fn from(error: io::Error) -> Self {
        Self::new(CloseReason::Lost, error.to_string())
    }
}

impl From<PacketError> for CloseInfo {
    fn from(error: PacketError) -> Self {
        Self { code: disconnect_code(&error), ..Self::new(CloseReason::Malformed, error.to_string()) }
    }
}

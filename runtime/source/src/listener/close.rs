use std::io;

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;

use crate::listener::connection_table::CloseReason;
use crate::listener::packet_memory::PacketMemoryError;
use crate::mqtt::error::PacketError;
use crate::mqtt::reason_codes::disconnect_code;

/// How a connection ended, with what there is to say about it.
#[derive(Debug)]
pub struct CloseInfo {
    pub ending: CloseReason,
    pub detail: String,
    /// The reason code of the DISCONNECT to a device that speaks MQTT 5.
    pub code: DisconnectReasonCode,
    /// The last packet to it may be cut off: nothing can follow.
    pub cut: bool,
}

impl CloseInfo {
    pub fn new(ending: CloseReason, detail: impl Into<String>) -> Self {
        let code = match ending {
            CloseReason::TakenOver => DisconnectReasonCode::SessionTakenOver,
            CloseReason::KeepAlive => DisconnectReasonCode::KeepAliveTimeout,
            CloseReason::Stopped => DisconnectReasonCode::ServerShuttingDown,
            CloseReason::ExactlyOnce => DisconnectReasonCode::QoSNotSupported,
            CloseReason::Malformed => DisconnectReasonCode::MalformedPacket,
            CloseReason::Unexpected => DisconnectReasonCode::ProtocolError,
            CloseReason::Buffers => DisconnectReasonCode::QuotaExceeded,
            _ => DisconnectReasonCode::UnspecifiedError,
        };
        Self { ending, detail: detail.into(), code, cut: false }
    }
}

impl From<CloseReason> for CloseInfo {
    fn from(ending: CloseReason) -> Self {
        Self::new(ending, String::new())
    }
}

impl From<io::Error> for CloseInfo {
    fn from(error: io::Error) -> Self {
        Self::new(CloseReason::Lost, error.to_string())
    }
}

impl From<PacketMemoryError> for CloseInfo {
    fn from(error: PacketMemoryError) -> Self {
        Self::new(CloseReason::Buffers, error.to_string())
    }
}

impl From<PacketError> for CloseInfo {
    fn from(error: PacketError) -> Self {
        Self { code: disconnect_code(&error), ..Self::new(CloseReason::Malformed, error.to_string()) }
    }
}

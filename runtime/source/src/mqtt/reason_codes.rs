//! The reason codes of MQTT 5 (section 2.4) that are sent.

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;

use crate::mqtt::error::PacketError;
use tidegate_core::reason::Reason;

/// The reason code of the PUBACK for a message that was refused. All are 0x80 or more: the message has
/// its outcome, and is not to be sent again.
pub fn puback_code(reason: Reason) -> u8 {
    match reason {
        Reason::BadTopicFormat => code::TOPIC_NAME_INVALID,
        Reason::NotOwnTopic
        | Reason::TenantMismatch
        | Reason::UnregisteredDevice
        | Reason::DeviceRevoked
        | Reason::SiteMismatch
        | Reason::TokenNotSet
        | Reason::TokenMissing
        | Reason::TokenInvalid => code::NOT_AUTHORIZED,
        // 0x95 would be the code for a payload, but a PUBACK cannot have it.
        Reason::PayloadTooLarge | Reason::RateLimited => code::QUOTA_EXCEEDED,
        Reason::BadPayload
        | Reason::BadEnvelope
        | Reason::MissingSiteId
        | Reason::NoObject
        | Reason::GuestRefused => code::PAYLOAD_FORMAT_INVALID,
        _ => code::UNSPECIFIED,
    }
}

/// The reason code of the DISCONNECT for bytes that are no packet of MQTT 5, or for a packet that we have forbidden.
pub fn disconnect_code(error: &PacketError) -> DisconnectReasonCode {
    match error {
        PacketError::TooLong { .. } | PacketError::PropertiesTooLong { .. } => {
            DisconnectReasonCode::PacketTooLarge
        }
        PacketError::TopicAlias => DisconnectReasonCode::TopicAliasInvalid,
        PacketError::PropertyTwice { .. } | PacketError::PropertyValue { .. } => {
            DisconnectReasonCode::ProtocolError
        }
        _ => DisconnectReasonCode::MalformedPacket,
    }
}

/// The reason codes of a PUBACK (section 3.4.2.1). PUBACKs are written without rumqttc.
pub mod code {

    pub const UNSPECIFIED: u8 = 0x80;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::reason::Reason;

    #[test]
    fn every_refusal_has_a_code_that_a_puback_may_carry() {
        // Those of 0x80 and more.
        let allowed = [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        for &reason in Reason::ALL {
            assert!(allowed.contains(&puback_code(reason)), "{reason}");
        }
    }
}

//! The faults of bytes that are no packet, and the packet types.

/// A fault of a packet. None of these is the fault of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("a remaining length of more than four bytes")]
    LengthOfLength,
    #[error("packet type {0} does not exist")]
    UnknownType(u8),
    #[error("packet type {kind} with flags {flags:#06b}, which the protocol reserves")]
    ReservedFlags { kind: u8, flags: u8 },
    #[error("a packet of {bytes} bytes, over the limit of {bytes_max}")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("a {0} packet that ends too early or too late")]
    WrongLength(&'static str),
    #[error("packet id 0")]
    PacketIdZero,
    #[error("a {0} that is not UTF-8 or holds U+0000")]
    NotText(&'static str),
    #[error("a {0} packet with impossible flags")]
    ImpossibleFlags(&'static str),
    #[error("a protocol name other than MQTT")]
    NotMqtt,
    #[error("property {id:#04x}, which a {packet} packet cannot have")]
    Property { id: u32, packet: &'static str },
    #[error("property {id:#04x} twice in a {packet} packet")]
    PropertyTwice { id: u32, packet: &'static str },
    #[error("property {id:#04x} with an impossible value")]
    PropertyValue { id: u32 },
    #[error("properties of {bytes} bytes, over the limit of {bytes_max}")]
    PropertiesTooLong { bytes: usize, bytes_max: usize },
    #[error("a topic alias, though the topic alias maximum is 0")]
    TopicAlias,
    #[error("a {packet} packet with code {code:#04x}, which the protocol does not know")]
    UnknownCode { packet: &'static str, code: u8 },
    #[error("a malformed {0} packet")]
    Malformed(&'static str),
}

/// The packet types (MQTT 3.1.1 section 2.2.1), as they stand in the upper half of the first byte.
pub mod kind {

    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
}

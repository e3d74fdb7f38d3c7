//! The MQTT that both sources speak, versions 3.1.1 and 5.
//!
//! Control packets and all properties are read and written by rumqttc. Framing, PUBLISH and PUBACK are
//! read and written here: three promises depend on it. A packet of any length neither ends a session
//! nor lies in memory; a message costs one copy of its payload; and PUBACKs leave in one write a group.
//! rumqttc reads more than the protocol allows, so each control packet is checked before it is read.

pub mod framing;
pub mod control;
pub mod publish;
pub mod reader;
pub mod error;
pub mod reason_codes;
pub(crate) mod connection_writer;

//! Ceilings.

/// The greatest offset or length in a mapping. Payloads of devices are shorter; MQTT's own limit is larger.
pub const OFFSET_MAX: usize = 65_535;

/// Records of one payload: each is a line, and the gateway takes as many lines of a message.
pub const RECORDS_MAX: usize = 1_000;

/// Values of one payload of JSON, CBOR or MessagePack: 4 MiB of an instance's memory.
pub const NODES_MAX: usize = 65_536;

/// Levels of nesting, as for objects.
pub const DEPTH_MAX: usize = tidegate_objects::DEPTH_MAX;

/// Columns of a row of CSV.
pub const COLUMNS_MAX: usize = 1_024;

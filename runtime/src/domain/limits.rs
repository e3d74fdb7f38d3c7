//! Every ceiling that is not configuration, each with the reason for its number.

/// Tenants that were named in a topic but never admitted get accounts of their own up to here:
/// anybody who may publish can invent names, and an account is about 300 bytes.
pub const STRANGER_ACCOUNTS_MAX: usize = 1_000;

/// Messages in one call of a guest: a call costs about 500 ns whatever it carries, 64 pay for it,
/// and more would let one call hold a decode thread for longer.
pub const DECODE_BATCH_MESSAGES_MAX: usize = 64;

/// Bytes of a refused payload that quarantine keeps when it was over the size limit.
pub const OVERSIZE_PAYLOAD_KEPT_BYTES: usize = 1024;

/// The largest MQTT packet that the protocol can name (MQTT 3.1.1 section 2.2.3).
pub const MQTT_PACKET_BYTES_MAX: usize = 268_435_455;

/// Tenants with a label of their own in the metrics: a label is a time series in the operator's
/// monitoring for ever, so what is beyond is counted together.
pub const METRIC_TENANTS_MAX: usize = 1_000;

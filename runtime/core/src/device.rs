//! A device as the registry knows it.

use crate::device_hash::DeviceHash;
use crate::ids::DeviceId;
use crate::line_protocol::identity::identity_tags;

/// A device with its identity in the registry.
#[derive(Debug)]
pub struct Device {
    pub id: DeviceId,
    /// Empty if the registry knows none.
    pub site: String,
    /// `,device_id=…[,site_id=…]`, escaped, ready to stand behind a measurement. `Err` names the
    /// fault of an identity that line protocol cannot carry.
    pub identity_tags: Result<Box<[u8]>, String>,
    /// Its messages stay on one decode thread, in order.
    pub affinity: DeviceHash,
}

/// Makes a device; its identity is escaped here, once.
pub fn make_device(device: &str, site: &str, affinity: DeviceHash) -> Device {
    Device {
        id: DeviceId::new(device),
        site: site.to_owned(),
        identity_tags: identity_tags(device, site).map_err(|fault| fault.to_string()),
        affinity,
    }
}

//! A request to look up one device.

use tidegate_core::ids::{DeviceId, TenantId};

/// A device that a look-up task has taken; `key` is that of its queue.
#[derive(Clone, Debug)]
pub struct LookupRequest {
    pub key: u64,
    pub tenant: TenantId,
    pub device: DeviceId,
}

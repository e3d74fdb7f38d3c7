use tidegate_core::ids::{DeviceId, TenantId};

/// A device in the hands of the resolver.
#[derive(Clone, Debug)]
pub struct LookupRequest {
    pub key: u64,
    pub tenant: TenantId,
    pub device: DeviceId,
}

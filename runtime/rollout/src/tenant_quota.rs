//! The room that a tenant takes: decoders, and bytes on disk.

use std::fs;
use std::path::Path;

use crate::error::RolloutError;
use crate::limits::GONE_HISTORIES_KEPT;
use crate::store::GuestStore;
use crate::tenant_limits::TenantLimits;
use tidegate_core::route_key::RouteKey;

impl GuestStore {
    /// Applies other limits from now on.
    pub fn set_tenant_limits(&self, limits: TenantLimits) {
        *self.tenant_limits.lock() = limits;
    }

    /// Checks that a tenant may have so many bytes more at a place. Forgets histories of decoders that are
    /// gone, the oldest first, where they are in the way.
    pub(super) fn check_quota(&self, route_key: &RouteKey, bytes: u64) -> Result<(), RolloutError> {
        let limits = *self.tenant_limits.lock();
        let tenant = &route_key.0;
        let others = {
            let entries = self.entries.lock();
            entries.keys().filter(|known| known.0 == *tenant && *known != route_key).count()
        };
        if others >= limits.decoders_max {
            return Err(RolloutError::Quota(format!(
                "{tenant} has {others} decoders; at most {} are allowed (guests.tenant_decoders_max)",
                limits.decoders_max
            )));
        }
        self.forget_gone(tenant, GONE_HISTORIES_KEPT);
        // Beside the file in the folder, a copy is kept to go back to.
        let needed = bytes.saturating_mul(2);
        let is_over = || self.bytes_on_disk(tenant).saturating_add(needed) > limits.bytes_max;
        if is_over() {
            self.forget_gone(tenant, 0);
        }
        if is_over() {
            let used = self.bytes_on_disk(tenant);
            return Err(RolloutError::Quota(format!(
                "the decoders of {tenant} and their earlier versions have {used} bytes, and this one needs {needed}; at most {} are allowed (guests.tenant_disk_bytes_max)",
                limits.bytes_max
            )));
        }
        Ok(())
    }

    fn bytes_on_disk(&self, tenant: &str) -> u64 {
        let kept = self.history.as_ref().map_or(0, |history| bytes_below(&history.tenant_folder(tenant)));
        bytes_below(&self.folder.join(tenant)).saturating_add(kept)
    }

    /// Forgets the histories of a tenant's decoders that are gone, but for the newest ones.
    pub(super) fn forget_gone(&self, tenant: &str, keep: usize) {
        let Some(history) = &self.history else { return };
        let entries = self.entries.lock();
        history.forget(tenant, keep, |stem| !entries.contains_key(&(tenant.to_owned(), stem.to_owned())));
    }
}

/// Bytes of all files below a folder; links count themselves.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
        _ => entry.metadata().map_or(0, |metadata| metadata.len()),
    });
    bytes.fold(0, u64::saturating_add)
}

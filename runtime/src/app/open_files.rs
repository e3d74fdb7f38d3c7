//! The limit of open files, and its parts: a reserve for spool, quarantine and databases, so that
//! connections of strangers can never take it, and the numbers of connections that are left.

use crate::limits::{
    ADMIN_CONNECTIONS_MAX, OPEN_FILES_MIN, OPEN_FILES_RESERVED_MAX, OPEN_FILES_RESERVED_MIN,
};

/// The limit of this process cannot do.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {0}, at least {OPEN_FILES_MIN} are needed: raise it with LimitNOFILE or ulimit -Hn"
)]
pub struct TooFewFiles(u64);

/// The parts of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// Files of all kinds.
    pub limit: u64,
    /// Kept from all connections.
    pub reserved: u64,
    /// Connections to the admin side.
    pub admin: usize,
    /// Connections of devices.
    pub devices: usize,
}

impl OpenFiles {
    /// Raises the limit as far as the system allows, and divides it.
    ///
    /// # Errors
    /// It is too low for the gateway's own files.
    pub fn raise() -> Result<Self, TooFewFiles> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls are given a limit of ours.
        let raised = unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
                let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
                let raised = libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) == 0;
                libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
                raised
            }
        };
        if !raised {
            let error = std::io::Error::last_os_error();
            tracing::warn!(%error, "the limit of open files stays as it was");
        }
        Self::of(limit.rlim_cur)
    }

    fn of(limit: u64) -> Result<Self, TooFewFiles> {
        if limit < OPEN_FILES_MIN {
            return Err(TooFewFiles(limit));
        }
        let reserved = (limit / 4).clamp(OPEN_FILES_RESERVED_MIN, OPEN_FILES_RESERVED_MAX);
        let admin = (limit / 8).min(ADMIN_CONNECTIONS_MAX as u64);
        let devices = limit - reserved - admin;
        let count = |files| usize::try_from(files).unwrap_or(usize::MAX);
        Ok(Self { limit, reserved, admin: count(admin), devices: count(devices) })
    }

    /// The number of connections of devices that can be had of `wanted`. Warns if those are fewer.
    pub fn connections(&self, wanted: usize) -> usize {
        if wanted > self.devices {
            tracing::warn!(
                wanted,
                possible = self.devices,
                open_files = self.limit,
                "listen.connections_max is lowered: each connection needs an open file, and the gateway keeps some \
                 for itself; raise LimitNOFILE or ulimit -Hn"
            );
        }
        wanted.min(self.devices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_s_own_files_come_first_and_the_parts_never_exceed_the_limit() {
        assert!(OpenFiles::of(OPEN_FILES_MIN - 1).is_err());
        for limit in [OPEN_FILES_MIN, 128, 1_024, 4_096, 524_288, 1 << 40, u64::MAX] {
            let files = OpenFiles::of(limit).unwrap();
            let parts = files.reserved + files.admin as u64 + files.devices as u64;
            assert!(parts <= limit && files.devices > 0 && files.admin > 0, "{files:?}");
            assert!(files.reserved >= OPEN_FILES_RESERVED_MIN, "{files:?}");
        }
        assert_eq!(OpenFiles::of(1_024).unwrap().connections(10_000), 640);
        assert_eq!(OpenFiles::of(1 << 20).unwrap().connections(10_000), 10_000);
    }
}

//! The statistics line, under the names of the Python service's `[stats]` line.

/// The figures of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Messages received.
    pub received: u64,
    /// Lines written.
    pub influx_batch_ok: u64,
    /// Lines refused or dropped.
    pub influx_batch_err: u64,
    /// POSTs answered 204.
    pub influx_flushes: u64,
    /// Lines pending.
    pub influx_buffer: u64,
    pub auth_cache_hits: u64,
    pub auth_cache_misses: u64,
    pub auth_cache_size: u64,
}

impl Statistics {
    /// Logs the line: INFO, event `stats`.
    pub fn log(&self) {
        tracing::info!(
            event = "stats",
            received = self.received,
            influx_batch_ok = self.influx_batch_ok,
            influx_batch_err = self.influx_batch_err,
            influx_flushes = self.influx_flushes,
            influx_buffer = self.influx_buffer,
            auth_cache_hits = self.auth_cache_hits,
            auth_cache_misses = self.auth_cache_misses,
            auth_cache_size = self.auth_cache_size,
            "stats"
        );
    }
}

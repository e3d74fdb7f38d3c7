//! The rates of calls that cost the gateway more than a look: another try of a database, a trial of a payload.

use std::time::Instant;

use parking_lot::Mutex;

use crate::admin::access::Visitor;
use crate::admin::respond::ApiError;
use crate::core::keyed_buckets::KeyedTokenBuckets;
use crate::limits::{COSTLY_CALLERS_MAX, COSTLY_CALLS_RATE};

/// A rate for each caller.
#[derive(Debug)]
pub struct TenantRates {
    began: Instant,
    buckets: Mutex<KeyedTokenBuckets<String>>,
}

impl Default for TenantRates {
    fn default() -> Self {
        let buckets = Mutex::new(KeyedTokenBuckets::new(COSTLY_CALLS_RATE, COSTLY_CALLERS_MAX));
        Self { began: Instant::now(), buckets }
    }
}

impl TenantRates {
    /// Takes a call of this caller.
    ///
    /// # Errors
    /// It has made too many.
    pub(crate) fn take(&self, visitor: &Visitor) -> Result<(), ApiError> {
        let now_s = self.began.elapsed().as_secs_f64();
        if self.buckets.lock().take(visitor.to_string(), now_s) {
            return Ok(());
        }
        let message = format!("at most {} such calls a second", COSTLY_CALLS_RATE.per_s);
        Err(ApiError { status: 429, code: "RATE_LIMITED", message })
    }
}

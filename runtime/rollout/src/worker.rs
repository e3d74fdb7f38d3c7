//! The threads that evaluate candidates, off the data path: one for all, and one for small ones, which wait
//! for no large one of another tenant.

use std::sync::Arc;

use crate::limits::SMALL_COMPONENT_BYTES_MAX;
use crate::put_request::{PutReply, PutRequest};
use crate::queue::{EvaluationJob, EvaluationQueue};
use crate::store::GuestStore;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

impl GuestStore {
    /// Starts the threads that evaluate candidates; they end with the store.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start_workers(self: &Arc<Self>) -> std::io::Result<()> {
        self.start_worker("guests", u64::MAX, |store| &store.queue)?;
        self.start_worker("guests-small", SMALL_COMPONENT_BYTES_MAX, |store| &store.queue)?;
        if self.host.settings().large.is_some() {
            self.start_worker("guests-large", u64::MAX, |store| &store.large_queue)?;
        }
        Ok(())
    }

    fn start_worker(
        self: &Arc<Self>,
        name: &str,
        bytes_max: u64,
        queue: fn(&Self) -> &EvaluationQueue,
    ) -> std::io::Result<()> {
        let store = Arc::downgrade(self);
        // Trials may burn their whole budget: not at the cost of decode threads.
        worker::start(name, Priority::Low, move || {
            while let Some(store) = store.upgrade() {
                let Some(turn) = queue(&store).next(bytes_max) else { continue };
                match turn.job {
                    EvaluationJob::EvaluateFile { route_key, .. } => store.evaluate_file(&route_key),
                    EvaluationJob::Put { put, answer } => answer(store.put_now(put)),
                }
                queue(&store).finish(&turn.tenant);
            }
        })?;
        Ok(())
    }

    /// Queues a component for its worker; false if too many wait.
    pub fn put(&self, put: PutRequest, answer: PutReply) -> bool {
        self.queue_of(&put.route_key).put(put, answer)
    }
}

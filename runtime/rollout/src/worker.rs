//! The thread that evaluates candidates: one at a time, off the data path.

use std::sync::Arc;

use crate::queue::{EvaluationJob, EvaluationQueue, PutReply};
use crate::store::GuestStore;
use tidegate_core::route_key::RouteKey;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

impl GuestStore {
    /// Starts the threads that evaluate candidates, one a class; they end with the store.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start_workers(self: &Arc<Self>) -> std::io::Result<()> {
        self.start_worker("guests", |store| &store.queue)?;
        if self.host.settings().large.is_some() {
            self.start_worker("guests-large", |store| &store.large_queue)?;
        }
        Ok(())
    }

    fn start_worker(
        self: &Arc<Self>,
        name: &str,
        queue: fn(&Self) -> &EvaluationQueue,
    ) -> std::io::Result<()> {
        let store = Arc::downgrade(self);
        // Trials may burn their whole budget: not at the cost of decode threads.
        worker::start(name, Priority::Low, move || {
            while let Some(store) = store.upgrade() {
                match queue(&store).next() {
                    Some(EvaluationJob::EvaluateFile(route_key)) => store.evaluate_file(&route_key),
                    Some(EvaluationJob::Put { route_key, component, who, answer }) => {
                        answer(store.put_now(&route_key, component, &who));
                    }
                    None => {}
                }
            }
        })?;
        Ok(())
    }

    /// Queues a component for its worker; false if too many wait.
    pub fn put(&self, route_key: RouteKey, component: Vec<u8>, who: String, answer: PutReply) -> bool {
        self.queue_of(&route_key).put(route_key, component, who, answer)
    }
}

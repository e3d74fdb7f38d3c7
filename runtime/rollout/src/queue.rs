//! The queue of candidates to be evaluated: tenants take turns, so that a tenant with many candidates
//! delays no other for long.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use crate::error::RolloutError;
use crate::limits::GUEST_PUTS_WAITING_A_TENANT_MAX;
use tidegate_core::route_key::RouteKey;

/// The outcome for a component that was put in place.
#[derive(Clone, Debug, Serialize)]
pub struct PutResult {
    pub guest: String,
    pub digest: String,
    /// `serving`, or `unchanged`: it served already.
    pub state: &'static str,
}

/// Called with the outcome for a component.
pub type PutReply = Box<dyn FnOnce(Result<PutResult, RolloutError>) + Send>;

pub enum EvaluationJob {
    /// The file of a route has changed.
    EvaluateFile(RouteKey),
    Put {
        route_key: RouteKey,
        component: Vec<u8>,
        who: String,
        answer: PutReply,
    },
}

#[derive(Default)]
struct QueuedJobs {
    /// By tenant's folder.
    jobs: BTreeMap<String, VecDeque<EvaluationJob>>,
    /// The tenant whose turn it was last.
    last: String,
    puts: usize,
}

impl QueuedJobs {
    fn push(&mut self, tenant: &str, job: EvaluationJob) {
        self.jobs.entry(tenant.to_owned()).or_default().push_back(job);
    }

    fn next(&mut self) -> Option<EvaluationJob> {
        let after = self.jobs.range(self.last.clone()..).map(|(tenant, _)| tenant).find(|t| **t != self.last);
        let tenant = after.or_else(|| self.jobs.keys().next())?.clone();
        let jobs = self.jobs.get_mut(&tenant)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&tenant);
        }
        self.last = tenant;
        if let Some(EvaluationJob::Put { .. }) = job {
            self.puts -= 1;
        }
        job
    }
}

/// The jobs that wait for a worker.
pub struct EvaluationQueue {
    waiting: Mutex<QueuedJobs>,
    woken: Condvar,
    puts_max: usize,
}

impl fmt::Debug for EvaluationQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvaluationQueue").finish_non_exhaustive()
    }
}

impl EvaluationQueue {
    /// One in which so many components may wait.
    pub fn new(puts_max: usize) -> Self {
        Self { waiting: Mutex::default(), woken: Condvar::new(), puts_max }
    }

    pub fn enqueue_file(&self, route_key: RouteKey) {
        self.waiting.lock().push(&route_key.0.clone(), EvaluationJob::EvaluateFile(route_key));
        self.woken.notify_one();
    }

    /// Queues a component; false if too many wait.
    pub fn put(&self, route_key: RouteKey, component: Vec<u8>, who: String, answer: PutReply) -> bool {
        let mut waiting = self.waiting.lock();
        let own = waiting
            .jobs
            .get(&route_key.0)
            .map_or(0, |jobs| jobs.iter().filter(|job| matches!(job, EvaluationJob::Put { .. })).count());
        if waiting.puts >= self.puts_max || own >= GUEST_PUTS_WAITING_A_TENANT_MAX {
            return false;
        }
        waiting.puts += 1;
        waiting.push(&route_key.0.clone(), EvaluationJob::Put { route_key, component, who, answer });
        self.woken.notify_one();
        true
    }

    /// The next job, if one comes within half a second.
    pub fn next(&self) -> Option<EvaluationJob> {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.is_empty() {
            self.woken.wait_for(&mut waiting, Duration::from_millis(500));
        }
        waiting.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GUEST_PUTS_WAITING_A_TENANT_MAX;

    #[test]
    fn tenants_take_turns() {
        let mut waiting = QueuedJobs::default();
        for route_key in ["acme/1", "acme/2", "acme/3", "globex/1", "hooli/1", "globex/2"] {
            let (tenant, stem) = route_key.split_once('/').unwrap();
            waiting.push(tenant, EvaluationJob::EvaluateFile((tenant.into(), stem.into())));
        }
        let order: Vec<String> = std::iter::from_fn(|| waiting.next())
            .map(|job| match job {
                EvaluationJob::EvaluateFile((tenant, stem)) => format!("{tenant}/{stem}"),
                EvaluationJob::Put { .. } => unreachable!(),
            })
            .collect();
        assert_eq!(order, ["acme/1", "globex/1", "hooli/1", "acme/2", "globex/2", "acme/3"]);
    }

    #[test]
    fn a_tenant_that_ships_too_much_waits_and_others_do_not() {
        let queue = EvaluationQueue::new(GUEST_PUTS_WAITING_A_TENANT_MAX + 1);
        let put = |tenant: &str| {
            queue.put((tenant.into(), "x".into()), Vec::new(), "operator".into(), Box::new(|_| {}))
        };
        for _ in 0..GUEST_PUTS_WAITING_A_TENANT_MAX {
            assert!(put("acme"));
        }
        assert!(!put("acme"));
        assert!(put("globex"));
        assert!(!put("hooli"), "all together are too many too");
    }
}

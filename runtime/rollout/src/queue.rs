//! The queue of candidates to be evaluated. Tenants take turns, each has one candidate at a time in hand, and a
//! tenant with many candidates, or large ones, keeps no other from its place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::limits::{
    GUEST_PUT_BYTES_WAITING_MAX, GUEST_PUTS_WAITING_A_TENANT_MAX, SMALL_COMPONENT_BYTES_MAX,
};
use crate::put_request::{PutAuthor, PutReply, PutRequest};
use tidegate_core::route_key::RouteKey;

pub enum EvaluationJob {
    /// The file of a route has changed.
    EvaluateFile {
        route_key: RouteKey,
        bytes: u64,
    },
    Put {
        put: PutRequest,
        answer: PutReply,
    },
}

impl EvaluationJob {
    fn bytes(&self) -> u64 {
        match self {
            Self::EvaluateFile { bytes, .. } => *bytes,
            Self::Put { put, .. } => put.file.bytes().len() as u64,
        }
    }

    fn is_put_by(&self, author: &PutAuthor) -> bool {
        matches!(self, Self::Put { put, .. } if put.author == *author)
    }
}

/// A job that a worker has in hand, and the folder whose turn it is.
pub struct Turn {
    pub tenant: String,
    pub job: EvaluationJob,
}

#[derive(Default)]
struct QueuedJobs {
    /// By tenant's folder.
    jobs: BTreeMap<String, VecDeque<EvaluationJob>>,
    /// Folders of which a worker has a job in hand.
    running: BTreeSet<String>,
    /// The tenant whose turn it was last.
    last: String,
    /// Components of tenants that wait, and their bytes.
    puts: usize,
    put_bytes: u64,
}

impl QueuedJobs {
    fn push(&mut self, tenant: &str, job: EvaluationJob) {
        self.count(&job, true);
        self.jobs.entry(tenant.to_owned()).or_default().push_back(job);
    }

    fn count(&mut self, job: &EvaluationJob, comes: bool) {
        if let EvaluationJob::Put { put, .. } = job
            && put.author != PutAuthor::Operator
        {
            let bytes = job.bytes();
            (self.puts, self.put_bytes) = match comes {
                true => (self.puts + 1, self.put_bytes + bytes),
                false => (self.puts - 1, self.put_bytes - bytes),
            };
        }
    }

    /// The next job of a tenant that has none in hand and whose next has no more bytes.
    fn next(&mut self, bytes_max: u64) -> Option<Turn> {
        let (before, after): (Vec<_>, Vec<_>) =
            self.jobs.iter().partition(|(tenant, _)| **tenant <= self.last);
        let is_next = |(tenant, jobs): &&(&String, &VecDeque<EvaluationJob>)| {
            !self.running.contains(*tenant) && jobs.front().is_some_and(|job| job.bytes() <= bytes_max)
        };
        let tenant = after.iter().chain(&before).find(is_next)?.0.clone();
        let jobs = self.jobs.get_mut(&tenant)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.jobs.remove(&tenant);
        }
        self.count(&job, false);
        self.last.clone_from(&tenant);
        self.running.insert(tenant.clone());
        Some(Turn { tenant, job })
    }

    /// True if there is a place for a component.
    fn has_place(&self, put: &PutRequest, puts_max: usize) -> bool {
        let own = self.jobs.values().flatten().filter(|job| job.is_put_by(&put.author)).count();
        if own >= GUEST_PUTS_WAITING_A_TENANT_MAX {
            return false;
        }
        let bytes = put.file.bytes().len() as u64;
        put.author == PutAuthor::Operator
            || (self.puts < puts_max
                && (bytes <= SMALL_COMPONENT_BYTES_MAX
                    || self.put_bytes + bytes <= GUEST_PUT_BYTES_WAITING_MAX))
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
    /// One in which so many components of tenants may wait.
    pub fn new(puts_max: usize) -> Self {
        Self { waiting: Mutex::default(), woken: Condvar::new(), puts_max }
    }

    pub fn enqueue_file(&self, route_key: RouteKey, bytes: u64) {
        let tenant = route_key.0.clone();
        self.waiting.lock().push(&tenant, EvaluationJob::EvaluateFile { route_key, bytes });
        self.woken.notify_all();
    }

    /// Queues a component; false if too many wait.
    pub fn put(&self, put: PutRequest, answer: PutReply) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.has_place(&put, self.puts_max) {
            return false;
        }
        let tenant = put.route_key.0.clone();
        waiting.push(&tenant, EvaluationJob::Put { put, answer });
        self.woken.notify_all();
        true
    }

    /// The next job of at most so many bytes, if one comes within half a second. Its worker calls `finish`.
    pub fn next(&self, bytes_max: u64) -> Option<Turn> {
        let mut waiting = self.waiting.lock();
        if let Some(turn) = waiting.next(bytes_max) {
            return Some(turn);
        }
        self.woken.wait_for(&mut waiting, Duration::from_millis(500));
        waiting.next(bytes_max)
    }

    /// Ends the turn of a tenant.
    pub fn finish(&self, tenant: &str) {
        self.waiting.lock().running.remove(tenant);
        self.woken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GUEST_PUTS_WAITING_A_TENANT_MAX;

    fn place(route: &str) -> RouteKey {
        let (tenant, stem) = route.split_once('/').unwrap();
        (tenant.into(), stem.into())
    }

    fn of_tenant(route: &str, bytes: usize) -> PutRequest {
        let route_key = place(route);
        let author = PutAuthor::Tenant(route_key.0.clone());
        PutRequest::new(route_key, vec![0; bytes], author)
    }

    fn route(turn: &Turn) -> String {
        let route_key = match &turn.job {
            EvaluationJob::EvaluateFile { route_key, .. } => route_key,
            EvaluationJob::Put { put, .. } => &put.route_key,
        };
        format!("{}/{}", route_key.0, route_key.1)
    }

    #[test]
    fn tenants_take_turns() {
        let queue = EvaluationQueue::new(8);
        for route in ["acme/1", "acme/2", "acme/3", "globex/1", "hooli/1", "globex/2"] {
            queue.enqueue_file(place(route), 0);
        }
        let order: Vec<String> = std::iter::from_fn(|| {
            let turn = queue.waiting.lock().next(u64::MAX)?;
            queue.finish(&turn.tenant);
            Some(route(&turn))
        })
        .collect();
        assert_eq!(order, ["acme/1", "globex/1", "hooli/1", "acme/2", "globex/2", "acme/3"]);
    }

    #[test]
    fn a_small_component_waits_for_no_large_one_of_another_tenant() {
        let queue = EvaluationQueue::new(8);
        for (route, bytes) in [("acme/large", 8_500_000), ("acme/small", 3_700), ("globex/large", 8_500_000)]
        {
            assert!(queue.put(of_tenant(route, bytes), Box::new(|_| {})));
        }
        let next = |bytes_max| queue.waiting.lock().next(bytes_max);
        let first = next(u64::MAX).unwrap();
        assert_eq!(route(&first), "acme/large");
        assert!(
            next(SMALL_COMPONENT_BYTES_MAX).is_none(),
            "the rest is large, or of a tenant that has its turn"
        );
        assert!(queue.put(of_tenant("hooli/small", 3_700), Box::new(|_| {})));
        assert_eq!(route(&next(SMALL_COMPONENT_BYTES_MAX).unwrap()), "hooli/small");
        queue.finish(&first.tenant);
        assert_eq!(route(&next(SMALL_COMPONENT_BYTES_MAX).unwrap()), "acme/small");
    }

    #[test]
    fn the_operator_and_small_components_have_a_place_however_much_waits() {
        let queue = EvaluationQueue::new(usize::MAX);
        let large = (GUEST_PUT_BYTES_WAITING_MAX / 2) as usize;
        assert!(queue.put(of_tenant("acme/1", large), Box::new(|_| {})));
        assert!(queue.put(of_tenant("globex/1", large), Box::new(|_| {})));
        assert!(!queue.put(of_tenant("hooli/1", 2 << 20), Box::new(|_| {})));
        assert!(queue.put(of_tenant("hooli/1", 1 << 20), Box::new(|_| {})));
        let of_operator = PutRequest::new(place("acme/2"), vec![0; 2 << 20], PutAuthor::Operator);
        assert!(queue.put(of_operator, Box::new(|_| {})));
    }

    #[test]
    fn a_tenant_that_ships_too_much_waits_and_others_do_not() {
        let queue = EvaluationQueue::new(GUEST_PUTS_WAITING_A_TENANT_MAX + 1);
        let put = |tenant: &str| queue.put(of_tenant(&format!("{tenant}/x"), 0), Box::new(|_| {}));
        for _ in 0..GUEST_PUTS_WAITING_A_TENANT_MAX {
            assert!(put("acme"));
        }
        assert!(!put("acme"));
        assert!(put("globex"));
        assert!(!put("hooli"), "all together are too many too");
    }
}

//! The thread that judges new guests: one at a time, off the data path, and each tenant in turn, so
//! that one who ships much keeps nobody else waiting for long.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::guest::GuestError;
use super::history::Place;
use super::store::{GuestStore, Put};
use crate::domain::limits::GUEST_PUTS_WAITING_A_TENANT_MAX;
use crate::domain::worker::{self, Priority};

/// Called with what became of a component.
pub type Answer = Box<dyn FnOnce(Result<Put, GuestError>) + Send>;

enum Job {
    /// The file at a place has changed.
    Look(Place),
    Put {
        place: Place,
        component: Vec<u8>,
        who: String,
        answer: Answer,
    },
}

#[derive(Default)]
struct Waiting {
    /// By tenant's folder.
    jobs: BTreeMap<String, VecDeque<Job>>,
    /// Whose turn it was last.
    last: String,
    puts: usize,
}

impl Waiting {
    fn push(&mut self, tenant: &str, job: Job) {
        self.jobs.entry(tenant.to_owned()).or_default().push_back(job);
    }

    fn next(&mut self) -> Option<Job> {
        let after = self.jobs.range(self.last.clone()..).map(|(tenant, _)| tenant).find(|t| **t != self.last);
        let tenant = after.or_else(|| self.jobs.keys().next())?.clone();
        let jobs = self.jobs.get_mut(&tenant)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&tenant);
        }
        self.last = tenant;
        if let Some(Job::Put { .. }) = job {
            self.puts -= 1;
        }
        job
    }
}

/// What waits for a loader.
pub struct Queue {
    waiting: Mutex<Waiting>,
    woken: Condvar,
    puts_max: usize,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// One in which so many components may wait.
    pub fn new(puts_max: usize) -> Self {
        Self { waiting: Mutex::default(), woken: Condvar::new(), puts_max }
    }

    pub fn look(&self, place: Place) {
        self.waiting.lock().push(&place.0.clone(), Job::Look(place));
        self.woken.notify_one();
    }

    /// Hands a component to the loader; false when too many wait.
    pub fn put(&self, place: Place, component: Vec<u8>, who: String, answer: Answer) -> bool {
        let mut waiting = self.waiting.lock();
        let own = waiting
            .jobs
            .get(&place.0)
            .map_or(0, |jobs| jobs.iter().filter(|job| matches!(job, Job::Put { .. })).count());
        if waiting.puts >= self.puts_max || own >= GUEST_PUTS_WAITING_A_TENANT_MAX {
            return false;
        }
        waiting.puts += 1;
        waiting.push(&place.0.clone(), Job::Put { place, component, who, answer });
        self.woken.notify_one();
        true
    }

    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.is_empty() {
            self.woken.wait_for(&mut waiting, Duration::from_millis(500));
        }
        waiting.next()
    }
}

impl GuestStore {
    /// Starts the loaders, one a class, which end with the store.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start_loader(self: &Arc<Self>) -> std::io::Result<()> {
        self.start_loader_of("guests", |store| &store.queue)?;
        if self.settings().large.is_some() {
            self.start_loader_of("guests-large", |store| &store.large_queue)?;
        }
        Ok(())
    }

    fn start_loader_of(self: &Arc<Self>, name: &str, queue: fn(&Self) -> &Queue) -> std::io::Result<()> {
        let store = Arc::downgrade(self);
        // Trials may burn their whole budget: not at the cost of those who decode.
        worker::start(name, Priority::Low, move || {
            while let Some(store) = store.upgrade() {
                match queue(&store).next() {
                    Some(Job::Look(place)) => store.look(&place),
                    Some(Job::Put { place, component, who, answer }) => {
                        answer(store.put_now(&place, component, &who));
                    }
                    None => {}
                }
            }
        })?;
        Ok(())
    }

    /// Hands a component to the loader; false when too many wait.
    pub fn put(&self, place: Place, component: Vec<u8>, who: String, answer: Answer) -> bool {
        self.queue_of(&place).put(place, component, who, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_take_turns() {
        let mut waiting = Waiting::default();
        for place in ["acme/1", "acme/2", "acme/3", "globex/1", "hooli/1", "globex/2"] {
            let (tenant, stem) = place.split_once('/').unwrap();
            waiting.push(tenant, Job::Look((tenant.into(), stem.into())));
        }
        let order: Vec<String> = std::iter::from_fn(|| waiting.next())
            .map(|job| match job {
                Job::Look((tenant, stem)) => format!("{tenant}/{stem}"),
                Job::Put { .. } => unreachable!(),
            })
            .collect();
        assert_eq!(order, ["acme/1", "globex/1", "hooli/1", "acme/2", "globex/2", "acme/3"]);
    }

    #[test]
    fn a_tenant_that_ships_too_much_waits_and_others_do_not() {
        let queue = Queue::new(GUEST_PUTS_WAITING_A_TENANT_MAX + 1);
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

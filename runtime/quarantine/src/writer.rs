//! The thread that makes refusals durable: it takes all that wait, with one write and one sync a ring, and
//! then settles. The next group forms meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tracing::{error, info};

use crate::entry::{Entry, rfc3339};
use crate::error::QuarantineError;
use crate::limits;
use crate::queue::{QuarantineJob, Shared};
use crate::segment::{EntryId, Series, Tally};
use tidegate_core::ack::settle::settle_all;
use tidegate_core::books::{Account, Outcome};

/// The interval of the search for entries that are too old while no refusal comes in.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// The longest wait between two tries, in first waits.
const RETRY_TIMES_MAX: u32 = 30;

/// Runs until the store is closed and all is written, or cannot be written.
pub fn run(shared: &Shared, retry: Duration) {
    loop {
        let jobs = {
            let mut queue = shared.queue.lock();
            queue.busy = false;
            while queue.jobs.is_empty() {
                if queue.closed {
                    return;
                }
                if shared.more.wait_for(&mut queue, EXPIRY_INTERVAL).timed_out() {
                    let now = shared.now();
                    shared.ring.lock().expire(now);
                }
            }
            queue.busy = true;
            std::mem::take(&mut queue.jobs)
        };
        let mut by_series = Series::ALL.map(|series| (series, VecDeque::new()));
        for job in jobs {
            let series = series_of(&job);
            let (_, jobs) = by_series.iter_mut().find(|(of, _)| *of == series).expect("ALL has every series");
            jobs.push_back(job);
        }
        for (series, mut jobs) in by_series {
            while !jobs.is_empty() {
                let group = take_group(&mut jobs);
                if !write_until_durable(shared, series, &group, retry) {
                    return;
                }
                settle(group);
            }
        }
    }
}

fn series_of(job: &QuarantineJob) -> Series {
    match job {
        QuarantineJob::Message(refused) => Series::of(refused),
        QuarantineJob::Lines(_) => Series::Known,
    }
}

fn take_group(jobs: &mut VecDeque<QuarantineJob>) -> Vec<QuarantineJob> {
    let mut bytes = 0;
    let mut group = Vec::new();
    while let Some(job) = jobs.pop_front() {
        bytes += match &job {
            QuarantineJob::Message(refused) => refused.payload.len() as u64,
            QuarantineJob::Lines(refused) => refused.lines.iter().map(|line| line.line.len() as u64).sum(),
        };
        group.push(job);
        if bytes >= limits::QUARANTINE_GROUP_BYTES {
            break;
        }
    }
    group
}

/// Tries until the group is durable. False when the store was closed meanwhile: the group stays
/// unsettled, was never acknowledged, and comes again.
fn write_until_durable(shared: &Shared, series: Series, group: &[QuarantineJob], retry: Duration) -> bool {
    let mut wait = retry;
    loop {
        match write(shared, series, group) {
            Ok(()) => {
                if !shared.usable.swap(true, Ordering::AcqRel) {
                    info!("quarantine can be written again");
                }
                return true;
            }
            Err(error) => {
                if shared.usable.swap(false, Ordering::AcqRel) {
                    error!(%error, waiting = group.len(), "refused messages cannot be kept; they stay unacknowledged");
                }
            }
        }
        let mut queue = shared.queue.lock();
        if queue.closed {
            return false;
        }
        // A refusal that is stored meanwhile does not end the wait: only a close does.
        let until = std::time::Instant::now() + wait;
        while !queue.closed && !shared.more.wait_until(&mut queue, until).timed_out() {}
        drop(queue);
        wait = (wait * 2).min(retry * RETRY_TIMES_MAX);
    }
}

fn write(shared: &Shared, series: Series, group: &[QuarantineJob]) -> Result<(), QuarantineError> {
    let now = shared.now();
    let kept_s = now.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
    let time = rfc3339(jiff::Timestamp::now().as_nanosecond() as i64);
    let mut ring = shared.ring.lock();
    let first = ring.next_location(series, now)?;
    let mut bytes = Vec::new();
    let mut tallies = Vec::with_capacity(group.len());
    let topics = shared.topics.as_deref();
    let observer = shared.observer.as_ref();
    let mut stored = Vec::new();
    let mut put = |account: &Arc<Account>, make: &dyn Fn(String) -> Entry| {
        let offset = bytes.len();
        let mut entry = make(EntryId { offset: first.offset + offset as u64, ..first }.to_string());
        entry.kept_s = kept_s;
        serde_json::to_writer(&mut bytes, &entry).expect("an entry is strings and numbers");
        bytes.push(b'\n');
        tallies.push(Tally {
            key: entry.key(),
            account: account.clone(),
            bytes: (bytes.len() - offset) as u64,
            time: now,
        });
        entry.id
    };
    for job in group {
        match job {
            QuarantineJob::Message(refused) => {
                let id = put(&refused.account, &|id| Entry::from_message(refused, id, &time, topics));
                if observer.is_some() {
                    stored.push((refused, id));
                }
            }
            QuarantineJob::Lines(refused) => {
                for line in &refused.lines {
                    put(&refused.account, &|id| Entry::from_line(refused, line, id, &time, topics));
                }
            }
        }
    }
    ring.append(series, &bytes, &tallies, now)?;
    drop(ring);
    if let Some(observer) = observer {
        stored.iter().for_each(|(refused, id)| observer.kept(refused, id));
    }
    Ok(())
}

fn settle(group: Vec<QuarantineJob>) {
    let mut jobs = group.into_iter().peekable();
    while let Some(job) = jobs.next() {
        match job {
            QuarantineJob::Lines(refused) => (refused.on_durable)(),
            QuarantineJob::Message(first) => {
                let account = first.account;
                let mut tokens = vec![first.token];
                let of_account = |job: &QuarantineJob| matches!(job, QuarantineJob::Message(next) if Arc::ptr_eq(&next.account, &account));
                while let Some(QuarantineJob::Message(next)) = jobs.next_if(of_account) {
                    tokens.push(next.token);
                }
                settle_all(tokens, Outcome::Quarantined, &account);
            }
        }
    }
}

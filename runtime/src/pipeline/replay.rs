//! Replays of quarantine entries through the gateway as it is today.
//!
//! - A replay takes the entries that matched at its start. A message that is refused again becomes a new
//!   entry, and waits for the next replay.
//! - A message that had passed admission keeps its identity of then. One that admission refused is
//!   admitted anew. Neither takes a rate token. Topic and time stay.
//! - An entry leaves quarantine once its message is settled. A gateway that dies in between still has it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::admission::ReadmittedMessage;
use crate::admission::registry_tasks::AdmittedSink;
use crate::core::ack::origin::ReplayedEntry;
use crate::core::ack::token::AckToken;
use crate::core::ack::window::ReceiveWindow;
use crate::core::books::Outcome;
use crate::core::ids::{DatabaseName, GuestTag};
use crate::core::message::{Admitted, CheckedBatch, CheckedMessage, Received, RefusedMessage};
use crate::decode::DecodeSink;
use crate::limits::{REPLAY_CHUNK_ENTRIES, REPLAY_SKIPPED_SHOWN, REPLAY_UNSETTLED_MAX};
use crate::pipeline::ingress::Ingress;
use crate::quarantine::{Entry, EntryLocation, Filter, Quarantine, QuarantineError, RemovalReason};

/// The interval of checks for messages that were dropped on their way, as a stop does.
const LOST_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The result of a replay.
#[derive(Debug, Default, Serialize)]
pub struct ReplayReport {
    /// Messages, and lines that the database had refused, whose replay is settled.
    pub replayed: u64,
    /// Entries of them whose lines are durable in the spool.
    pub lines: u64,
    /// Entries of which the guest made no line.
    pub empty: u64,
    /// Entries that are in quarantine again.
    pub quarantined_again: u64,
    /// Entries that are parked until the registry is back.
    pub parked: u64,
    pub dropped: u64,
    /// Entries that cannot be replayed, and stay.
    pub skipped_count: u64,
    /// The first of them.
    pub skipped: Vec<SkippedEntry>,
    /// Entries that left quarantine before their turn.
    pub gone: u64,
    /// Entries that match too, beyond what one replay takes.
    pub left: u64,
    /// The gateway was stopped meanwhile; what is not done is still there.
    pub stopped: bool,
}

/// An entry that cannot be replayed.
#[derive(Debug, Serialize)]
pub struct SkippedEntry {
    pub id: String,
    pub why: String,
}

/// There is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("another replay runs already")]
    Running,
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error("the replay ended by a fault of the gateway: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Replays, one at a time.
#[derive(Clone)]
pub struct Replays(Arc<Shared>);

struct Shared {
    ingress: Arc<Ingress>,
    quarantine: Quarantine,
    window: Arc<ReceiveWindow>,
    stopping: watch::Receiver<Option<tokio::time::Instant>>,
    running: AtomicBool,
}

impl Replays {
    pub fn new(
        ingress: Arc<Ingress>,
        quarantine: Quarantine,
        window: Arc<ReceiveWindow>,
        stopping: watch::Receiver<Option<tokio::time::Instant>>,
    ) -> Self {
        Self(Arc::new(Shared { ingress, quarantine, window, stopping, running: AtomicBool::new(false) }))
    }

    /// Replays what matches now, oldest message first, at most `max`. It continues when nobody waits
    /// for its report any more.
    ///
    /// # Errors
    /// Another one is under way, or quarantine cannot be read or written.
    pub async fn run(&self, filter: Filter, max: usize) -> Result<ReplayReport, ReplayError> {
        if self.0.running.swap(true, Ordering::AcqRel) {
            return Err(ReplayError::Running);
        }
        let running = ReplayGuard(self.0.clone());
        tokio::spawn(async move { run(&running.0, filter, max).await }).await?
    }

    /// Waits until no replay is under way, or the deadline.
    pub async fn ended(&self, deadline: Instant) {
        while self.0.running.load(Ordering::Acquire) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct ReplayGuard(Arc<Shared>);

impl Drop for ReplayGuard {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

async fn run(shared: &Arc<Shared>, filter: Filter, max: usize) -> Result<ReplayReport, ReplayError> {
    tracing::info!(?filter, "replaying from quarantine");
    let quarantine = shared.quarantine.clone();
    let (places, left) = tokio::task::spawn_blocking(move || quarantine.matching(filter, max)).await??;
    let mut replay_run = ReplayRun {
        shared: shared.clone(),
        settled: Arc::default(),
        waiting: VecDeque::new(),
        report: ReplayReport { left, ..ReplayReport::default() },
    };
    for chunk in places.chunks(REPLAY_CHUNK_ENTRIES) {
        replay_run.wait_until_waiting(REPLAY_UNSETTLED_MAX - REPLAY_CHUNK_ENTRIES).await?;
        replay_run.wait_for_room().await;
        replay_run.report.stopped |= shared.is_stopping();
        if replay_run.report.stopped {
            break;
        }
        replay_run.submit(chunk).await?;
        replay_run.take_out_settled().await?;
    }
    replay_run.wait_until_waiting(0).await?;
    let report = replay_run.report;
    tracing::info!(
        replayed = report.replayed,
        lines = report.lines,
        empty = report.empty,
        quarantined_again = report.quarantined_again,
        parked = report.parked,
        skipped = report.skipped_count,
        left = report.left,
        "replayed from quarantine"
    );
    Ok(report)
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.borrow().is_some()
    }
}

/// A replay between its first entry and its last.
struct ReplayRun {
    shared: Arc<Shared>,
    /// Notified whenever one of its messages is settled.
    settled: Arc<Notify>,
    /// Entries whose messages are on their way, in the order of their tokens.
    waiting: VecDeque<(EntryLocation, Arc<ReplayedEntry>)>,
    report: ReplayReport,
}

/// One entry, ready to be submitted.
enum ReplayStep {
    Admitted(Box<Admitted>),
    Refused(Box<RefusedMessage>),
    /// Admission submits it once the registry has answered.
    Waits,
    Lines(CheckedBatch),
}

impl ReplayRun {
    /// Submits the messages of some entries.
    async fn submit(&mut self, places: &[EntryLocation]) -> Result<(), ReplayError> {
        let (dir, wanted) = (self.shared.quarantine.dir().to_owned(), places.to_vec());
        let found = tokio::task::spawn_blocking(move || Quarantine::find(&dir, &wanted)).await??;
        self.report.gone += (places.len() - found.len()) as u64;
        let ingress = self.shared.ingress.clone();
        let (mut admitted, mut refused) = (Vec::new(), Vec::new());
        for (place, entry) in found {
            let id = entry.id.clone();
            match self.step(place, entry) {
                Err(why) => self.skip(id, why),
                Ok(ReplayStep::Admitted(message)) => admitted.push(*message),
                Ok(ReplayStep::Refused(message)) => refused.push(*message),
                Ok(ReplayStep::Waits) => {}
                Ok(ReplayStep::Lines(batch)) => ingress.egress.lines(vec![batch]),
            }
        }
        admitted.iter_mut().for_each(|message: &mut Admitted| message.token.enter(&ingress.egress.in_flight));
        ingress.submit(admitted, refused).await;
        Ok(())
    }

    /// Makes of an entry what it was, or says why it cannot be replayed. Only what can has a token.
    fn step(&mut self, place: EntryLocation, entry: Entry) -> Result<ReplayStep, String> {
        let admission = self.shared.ingress.admission.clone();
        let received_ns = entry
            .received_at
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|time| i64::try_from(time.as_nanosecond()).ok())
            .ok_or("its time of receipt cannot be read")?;
        if let Some(mut line) = entry.line {
            let (Some(tenant), Some(database)) = (&entry.tenant, &entry.database) else {
                return Err("the tenant or the database of its line was not kept".into());
            };
            let affinity = admission.device_hash(tenant, entry.device.as_deref().unwrap_or_default());
            let tenant = admission.known_tenant(tenant);
            tenant.database()?;
            line.push('\n');
            tenant.account.receive(1);
            let token = self.token(place, entry.replays, entry.topic.len() + line.len());
            let message = CheckedMessage {
                topic: entry.topic,
                received_ns,
                lines_end: line.len() as u32,
                line_count: 1,
                affinity: affinity.folded(),
                token,
            };
            return Ok(ReplayStep::Lines(CheckedBatch::from_quarantine(
                DatabaseName::new(database),
                tenant,
                GuestTag::new(entry.guest.as_deref().unwrap_or_default()),
                line.into_bytes(),
                message,
            )));
        }
        if entry.truncated {
            return Err("only the beginning of its payload was kept".into());
        }
        let payload = entry.payload_bytes_kept().ok_or("its payload cannot be read")?;
        let payload = Bytes::from(payload);
        let via = entry.via();
        let token = self.token(place, entry.replays, entry.topic.len() + payload.len());
        let judged = match (entry.tenant, entry.device, entry.site) {
            (Some(tenant), Some(device), Some(site)) => admission
                .readmit(ReadmittedMessage {
                    topic: entry.topic,
                    payload,
                    received_ns,
                    tenant,
                    device,
                    site,
                    token,
                })
                .map(Some),
            _ => admission.readmit_refused(Received {
                topic: entry.topic,
                payload_bytes: payload.len(),
                payload,
                received_ns,
                via,
                token,
            }),
        };
        Ok(match judged {
            Ok(Some(message)) => ReplayStep::Admitted(Box::new(message)),
            Ok(None) => ReplayStep::Waits,
            Err(message) => ReplayStep::Refused(message),
        })
    }

    fn token(&mut self, place: EntryLocation, replays: u32, bytes: usize) -> AckToken {
        let replay =
            ReplayedEntry::new(place.id.to_string(), replays.saturating_add(1)).waking(self.settled.clone());
        let replay = Arc::new(replay);
        self.waiting.push_back((place, replay.clone()));
        AckToken::replayed(&self.shared.window, replay, bytes)
    }

    fn skip(&mut self, id: String, why: String) {
        self.report.skipped_count += 1;
        if self.report.skipped.len() < REPLAY_SKIPPED_SHOWN {
            self.report.skipped.push(SkippedEntry { id, why });
        }
    }

    /// Takes out the entries of the longest settled prefix, and counts how they ended.
    async fn take_out_settled(&mut self) -> Result<(), ReplayError> {
        let settled = self.waiting.iter().take_while(|(_, replay)| replay.outcome().is_some()).count();
        if settled == 0 {
            return Ok(());
        }
        let mut places = Vec::with_capacity(settled);
        for (place, replay) in self.waiting.drain(..settled) {
            places.push(place);
            self.report.replayed += 1;
            match replay.outcome() {
                Some(Outcome::Lines) => self.report.lines += 1,
                Some(Outcome::Empty) => self.report.empty += 1,
                Some(Outcome::Quarantined) => self.report.quarantined_again += 1,
                Some(Outcome::Parked) => self.report.parked += 1,
                Some(Outcome::Dropped) | None => self.report.dropped += 1,
            }
        }
        let quarantine = self.shared.quarantine.clone();
        tokio::task::spawn_blocking(move || quarantine.take_out(&places, RemovalReason::Replayed)).await??;
        Ok(())
    }

    /// Waits until at most `messages` are on their way, or one of them is lost: then the gateway
    /// stops, and none behind it is ever acknowledged.
    async fn wait_until_waiting(&mut self, messages: usize) -> Result<(), ReplayError> {
        let settled = self.settled.clone();
        loop {
            self.take_out_settled().await?;
            if self.waiting.len() <= messages || self.is_first_lost() {
                break;
            }
            let _ = tokio::time::timeout(LOST_POLL_INTERVAL, settled.notified()).await;
        }
        if self.waiting.len() > messages {
            self.waiting.clear();
            self.report.stopped = true;
        }
        Ok(())
    }

    /// True if the token of the first message is gone without an outcome.
    fn is_first_lost(&self) -> bool {
        // The token holds the other handle, and tells its outcome before it lets go.
        self.waiting
            .front()
            .is_some_and(|(_, replay)| Arc::strong_count(replay) == 1 && replay.outcome().is_none())
    }

    /// Waits for room in the window, or for the stop.
    async fn wait_for_room(&self) {
        let mut stopping = self.shared.stopping.clone();
        tokio::select! {
            () = self.shared.window.until_not_full() => {}
            _ = stopping.wait_for(|stop| stop.is_some()) => {}
        }
    }
}

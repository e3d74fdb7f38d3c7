//! The decode threads: OS threads that call guests synchronously, fed from the sources' tasks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::batching_sink::BatchingSink;
use crate::decoder::Decoder;
use crate::error::SandboxError;
use crate::host::DecodeHost;
use crate::limits::{DECODE_GROUP_MESSAGES_MAX, DECODE_QUEUE_GROUPS};
use crate::placed_messages::{PlacedMessages, place};
use crate::sandbox::cpu_clock::thread_cpu;
use crate::schedule::cpu_quota::CpuQuotas;
use crate::schedule::slow_lane::{LaneQueue, SlowLane, SlowMessage};
use crate::sink::DecodeSink;
use tidegate_core::message::Admitted;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

/// The threads, which end once the pool is gone and all waiting messages are decoded. A device's messages go to
/// the same one while any of them is in work, so they stay in order.
#[derive(Debug)]
pub struct DecodePool {
    queues: Vec<Sender<PlacedMessages>>,
    slow: Arc<SlowLane>,
}

impl DecodePool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start<S>(host: &Arc<DecodeHost>, sink: &Arc<S>) -> Result<Self, SandboxError>
    where
        S: DecodeSink + Send + Sync + 'static,
    {
        let quotas = Arc::new(CpuQuotas::new(host.settings().threads));
        let slow = start_slow_lane(host, &quotas, sink)?;
        let mut pool = Self { queues: Vec::new(), slow };
        for number in 0..host.settings().threads {
            let (queue, waiting) = mpsc::channel(DECODE_QUEUE_GROUPS);
            let (host, sink, slow) = (host.clone(), sink.clone(), pool.slow.clone());
            worker::start(format!("decode-{number}"), Priority::Normal, move || {
                let quotas = slow.quotas.clone();
                run(Decoder::with_lane(host, slow, number), &quotas, number, waiting, &*sink);
            })?;
            pool.queues.push(queue);
        }
        Ok(pool)
    }

    /// Sends messages to the threads of their tenants and devices. Waits while those have enough.
    pub async fn submit(&self, messages: Vec<Admitted>) {
        if messages.is_empty() {
            return;
        }
        self.slow.until_not_full(&messages).await;
        for (thread, group) in place(&self.slow.quotas.placements, self.queues.len(), messages).await {
            self.send(thread, group).await;
        }
    }

    async fn send(&self, thread: usize, group: PlacedMessages) {
        self.slow.quotas.arrived(thread, group.messages.len());
        if self.queues[thread].send(group).await.is_err() {
            // The messages stay unsettled: they are not acknowledged, and come again.
            tracing::error!(thread, "a decode thread is gone");
        }
    }
}

fn run(
    mut decoder: Decoder,
    quotas: &CpuQuotas,
    number: usize,
    mut waiting: Receiver<PlacedMessages>,
    sink: &impl DecodeSink,
) {
    while let Some(mut group) = waiting.blocking_recv() {
        // Waiting messages go along, but no more are waited for.
        while group.messages.len() < DECODE_GROUP_MESSAGES_MAX
            && let Ok(more) = waiting.try_recv()
        {
            group.messages.extend(more.messages);
            group.counts.extend(more.counts);
        }
        quotas.taken(number, group.messages.len());
        decoder.decode(group.messages, &BatchingSink::new(sink));
        group.counts.into_iter().for_each(|(bucket, messages)| quotas.placements.leave(bucket, messages));
    }
}

/// Patience of an idle thread that keeps an instance which another one may wait for.
const RELEASE_WITHIN: Duration = Duration::from_millis(20);

/// Starts the slow lane's threads, as many as there are decode threads; they end with the lane.
fn start_slow_lane<S>(
    host: &Arc<DecodeHost>,
    quotas: &Arc<CpuQuotas>,
    sink: &Arc<S>,
) -> std::io::Result<Arc<SlowLane>>
where
    S: DecodeSink + Send + Sync + 'static,
{
    let threads = host.settings().threads;
    let large = host.settings().large.as_ref().map_or(threads, |large| large.threads(threads));
    let lane = SlowLane::new(threads, large, quotas);
    for (number, queue) in lane.queues.iter().cloned().enumerate() {
        let (host, sink, lane) = (host.clone(), sink.clone(), Arc::downgrade(&lane));
        let quotas = quotas.clone();
        worker::start(format!("slow-{number}"), Priority::Low, move || {
            let decoder = Decoder::new(host).with_quotas(quotas.clone());
            run_slow(decoder, &quotas, &queue, &lane, &*sink);
        })?;
    }
    Ok(lane)
}

fn run_slow(
    mut decoder: Decoder,
    quotas: &CpuQuotas,
    queue: &LaneQueue,
    lane: &Weak<SlowLane>,
    sink: &impl DecodeSink,
) {
    while let Some(next) = queue.next(decoder.keeps_large().then_some(RELEASE_WITHIN)) {
        let (messages, done): (Vec<_>, Vec<_>) = next.into_iter().map(SlowMessage::split).unzip();
        if let Some(tenant) = messages.first().map(|message: &Admitted| message.tenant.clone()) {
            let began = thread_cpu();
            decoder.decode(messages, sink);
            queue.charge(thread_cpu().saturating_sub(began), quotas.share(&tenant));
        }
        decoder.release_idle();
        let Some(lane) = lane.upgrade() else { continue };
        done.iter().for_each(|from| lane.done(from));
    }
}

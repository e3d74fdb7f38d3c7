//! The decode threads: OS threads that call guests synchronously, fed from the sources' tasks.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{self, Receiver, Sender};

use super::decoder::Decoder;
use super::shares::CpuShares;
use super::slow::SlowLane;
use super::store::GuestStore;
use super::together::Together;
use super::{DecodeSink, GuestError};
use crate::domain::limits::{DECODE_GATHER_MESSAGES, DECODE_QUEUE_GROUPS};
use crate::domain::message::Admitted;

/// The threads. A device's messages always go to the same one, so they stay in order.
#[derive(Debug)]
pub struct DecodePool {
    queues: Vec<Sender<Vec<Admitted>>>,
    slow: Arc<SlowLane>,
    threads: Vec<JoinHandle<()>>,
}

impl DecodePool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start<S>(
        guests: &Arc<GuestStore>,
        shares: &Arc<CpuShares>,
        sink: &Arc<S>,
    ) -> Result<Self, GuestError>
    where
        S: DecodeSink + Send + Sync + 'static,
    {
        let slow = SlowLane::start(guests, shares, sink)?;
        let mut pool = Self { queues: Vec::new(), slow, threads: Vec::new() };
        for number in 0..guests.settings().threads {
            let (queue, waiting) = mpsc::channel(DECODE_QUEUE_GROUPS);
            let (guests, sink, slow) = (guests.clone(), sink.clone(), pool.slow.clone());
            let thread = std::thread::Builder::new().name(format!("decode-{number}")).spawn(move || {
                let shares = slow.shares.clone();
                run(Decoder::with_lane(guests, slow, number), &shares, waiting, &*sink);
            })?;
            pool.queues.push(queue);
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Hands messages to the threads of their devices. Waits while those have enough.
    pub async fn submit(&self, messages: Vec<Admitted>) {
        if messages.is_empty() {
            return;
        }
        self.slow.room(&messages).await;
        let threads = self.queues.len();
        if threads == 1 {
            self.send(0, messages).await;
            return;
        }
        let mut parts: Vec<Vec<Admitted>> = (0..threads).map(|_| Vec::new()).collect();
        for message in messages {
            let thread = message.device.affinity.part_of(threads);
            parts[thread].push(message);
        }
        for (thread, part) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            self.send(thread, part).await;
        }
    }

    async fn send(&self, thread: usize, messages: Vec<Admitted>) {
        self.slow.shares.arrived(messages.len());
        if self.queues[thread].send(messages).await.is_err() {
            // The messages stay unsettled: they are not acknowledged, and come again.
            tracing::error!(thread, "a decode thread is gone");
        }
    }

    /// Ends the threads once they have decoded what waits.
    pub fn finish(mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a decode thread had panicked");
            }
        }
    }
}

fn run(
    mut decoder: Decoder,
    shares: &CpuShares,
    mut waiting: Receiver<Vec<Admitted>>,
    sink: &impl DecodeSink,
) {
    while let Some(mut messages) = waiting.blocking_recv() {
        // What waits goes along, but nothing is waited for.
        while messages.len() < DECODE_GATHER_MESSAGES
            && let Ok(more) = waiting.try_recv()
        {
            messages.extend(more);
        }
        shares.taken(messages.len());
        decoder.decode(messages, &Together::new(sink));
    }
}

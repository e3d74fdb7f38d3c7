//! Stopping, upstream first: reading ends, messages settle, settled ones are acknowledged, and
//! connections close last. All of it is done by one deadline.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::task::JoinSet;

use crate::admission::registry_tasks;
use crate::app::signals::Signals;
use crate::app::{App, signals};
use crate::limits;

impl App {
    /// Stops, until another signal ends that at once.
    pub(super) async fn stop(self, mut signals: Signals) -> anyhow::Result<()> {
        let handles = self.handles.clone();
        let mut stopping = Box::pin(self.stop_in_order());
        tokio::select! {
            stopped = &mut stopping => return stopped,
            () = signals.next_stop() => {}
        }
        // Nothing is waited for: no part is dropped, and the process ends with the threads that it has.
        std::mem::forget(stopping);
        tracing::warn!(
            lines_in_spool = handles.spool.lines_pending(),
            messages_unsettled = handles.window.messages(),
            "stopped at once by a second signal; lines stay in the spool and are written after the next \
             start, unsettled messages were not acknowledged and come again"
        );
        Ok(())
    }

    async fn stop_in_order(mut self) -> anyhow::Result<()> {
        let handles = self.handles.clone();
        tracing::info!(deadline_s = self.shutdown_deadline.as_secs(), "stopping");
        signals::notify(&[NotifyState::Stopping]);
        let deadline = Instant::now() + self.shutdown_deadline;

        // No more is read.
        handles.window.stop();
        self.stop.send_replace(Some(deadline.into()));
        let _ = tokio::time::timeout_at(deadline.into(), &mut self.unparker).await;

        // All that was read is decoded, and durable in the spool or in quarantine.
        self.ingress.drain(deadline).await;
        let (spool, quarantine) = (handles.spool.clone(), handles.quarantine.clone());
        let flush = move || spool.flush(deadline) & quarantine.flush(deadline);
        let flushed = tokio::task::spawn_blocking(flush).await?;
        handles.replays.ended(deadline).await;

        // Sources acknowledge it and close, while lines are written.
        let stop = &self.stop;
        let write = async {
            let left = handles.writer.drain(deadline).await;
            // What waits for room in the spool gets none any more: nothing is written now.
            let spool = handles.spool.clone();
            let _ = tokio::task::spawn_blocking(move || spool.flush(deadline)).await;
            let soon = Instant::now() + Duration::from_millis(limits::STOP_ACKNOWLEDGE_MS);
            stop.send_replace(Some(deadline.min(soon).into()));
            left
        };
        let (left, ()) = tokio::join!(write, sources_end(&mut self.sources, deadline));

        // Marks of written lines are stored, so that they are not written again.
        let (spool, clock, age_clock) =
            (handles.spool.clone(), self.clock.clone(), handles.age_clock.clone());
        tokio::task::spawn_blocking(move || {
            spool.close();
            clock.close();
            age_clock.persist();
        })
        .await?;

        self.housekeeping.abort();
        self.beside.abort_all();
        self.fleet.finish().await;
        registry_tasks::finish(&handles.admission).await;
        drop(std::mem::take(&mut self.registry_tasks));

        if !flushed {
            tracing::warn!("stopped with unsettled messages; they are not acknowledged and come again");
        }
        if !left.databases.is_empty() {
            tracing::info!(
                lines = handles.spool.lines_pending(),
                databases = left.databases.len(),
                "stopped with a backlog; it stays in the spool and is written after the next start"
            );
        }
        handles.statistics().log();
        drop(self.admin.take());
        tracing::info!("stopped");
        Ok(())
    }
}

async fn sources_end(sources: &mut JoinSet<()>, deadline: Instant) {
    let ended =
        tokio::time::timeout_at(deadline.into(), async { while sources.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!("a source did not end in time");
    }
}

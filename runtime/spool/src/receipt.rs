//! The writer's reports on the lines of frames.

use std::sync::atomic::Ordering;

use crate::ids::FrameId;
use crate::shared::Shared;
use tidegate_core::durable::{FrameName, MessageSet, Receipts, WrittenMessages};

/// Frames that are settled under one lock of the index, which the committer waits for.
const SETTLED_AT_ONCE: usize = 64;

fn id_of(frame: FrameName<'_>) -> FrameId {
    FrameId { stream: frame.position.stream, seq: frame.position.number }
}

/// Tells the spool what became of lines.
impl Receipts for Shared {
    fn written(&self, written: &[WrittenMessages<'_>]) {
        let lines: u64 = written.iter().map(|of| u64::from(of.lines)).sum();
        self.lines_pending.fetch_sub(lines, Ordering::Relaxed);
        for of in written {
            of.frame.account.write_lines(u64::from(of.lines));
        }
        let mut gone = Vec::with_capacity(SETTLED_AT_ONCE.min(written.len()));
        for some in written.chunks(SETTLED_AT_ONCE) {
            {
                let mut index = self.index.lock();
                for of in some {
                    let released = index.settle(id_of(of.frame), of.messages, of.lines);
                    gone.extend(released.map(|released| (of.frame.account.tenant(), released.bytes)));
                }
            }
            self.freed_all(gone.drain(..));
        }
    }

    fn lines_written(&self, frame: FrameName<'_>, lines: u64) {
        self.lines_pending.fetch_sub(lines, Ordering::Relaxed);
        frame.account.write_lines(lines);
    }

    fn lines_refused(&self, frame: FrameName<'_>, lines: u64) {
        self.lines_pending.fetch_sub(lines, Ordering::Relaxed);
        frame.account.refuse_lines(lines);
        self.index.lock().refuse(id_of(frame), lines as u32);
    }

    fn settled(&self, frame: FrameName<'_>, messages: MessageSet, lines: u32) {
        let gone = self.index.lock().settle(id_of(frame), messages, lines);
        self.freed_all(gone.map(|gone| (frame.account.tenant(), gone.bytes)));
    }

    fn returned(&self, frame: FrameName<'_>, messages: MessageSet) -> u32 {
        self.index.lock().return_messages(id_of(frame), messages)
    }

    fn set_apart(&self, frame: FrameName<'_>, messages: MessageSet, bytes: usize) {
        self.index.lock().set_apart(id_of(frame), messages, bytes as u64);
    }
}

//! The writer's report on the lines of a frame.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ids::FrameId;
use crate::shared::Shared;
use tidegate_core::books::Account;
use tidegate_core::durable::{Receipt, message_set};

/// Tells the spool what became of the lines of one frame.
pub struct FrameReceipt {
    shared: Arc<Shared>,
    id: FrameId,
    account: Arc<Account>,
    /// Lines that were reported since messages were settled last.
    reported: AtomicU32,
}

impl Receipt for FrameReceipt {
    fn lines_written(&self, lines: u64) {
        self.reported.fetch_add(lines as u32, Ordering::Relaxed);
        self.shared.lines_pending.fetch_sub(lines, Ordering::Relaxed);
        self.account.write_lines(lines);
    }

    fn lines_refused(&self, lines: u64) {
        self.reported.fetch_add(lines as u32, Ordering::Relaxed);
        self.shared.lines_pending.fetch_sub(lines, Ordering::Relaxed);
        self.account.refuse_lines(lines);
        self.shared.index.lock().refuse(self.id, lines as u32);
    }

    fn settled(&self, messages: Range<usize>) {
        let lines = self.reported.swap(0, Ordering::Relaxed);
        let gone = self.shared.index.lock().settle(self.id, message_set(messages), lines);
        if let Some(gone) = gone {
            self.shared.freed(self.account.tenant(), gone.bytes);
        }
    }

    fn returned(&self, messages: Range<usize>) -> u32 {
        self.shared.index.lock().return_messages(self.id, message_set(messages))
    }

    fn set_apart(&self, messages: &[usize], bytes: usize) {
        let messages = messages.iter().fold(0, |set, &message| set | message_set(message..message + 1));
        self.shared.index.lock().set_apart(self.id, messages, bytes as u64);
    }
}

pub fn receipt(shared: &Arc<Shared>, id: FrameId, account: &Arc<Account>) -> Arc<FrameReceipt> {
    let (shared, account) = (shared.clone(), account.clone());
    Arc::new(FrameReceipt { shared, id, account, reported: AtomicU32::new(0) })
}

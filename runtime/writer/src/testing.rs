//! Durable lines as the spool delivers them, for the writer's own tests.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::lines_budget::{DatabaseShare, LinesBudget};
use crate::pending_lines::PendingLines;
use tidegate_core::books::Account;
use tidegate_core::durable::{
    Durable, DurableMessage, FrameLines, FrameName, MessageSet, Receipts, StreamPosition, message_set,
};
use tidegate_core::synced::Synced;

/// A share of a budget that never ends.
pub fn unlimited() -> DatabaseShare {
    LinesBudget::new(1 << 40).share()
}

/// The calls of `Receipts`.
#[derive(Debug, Default)]
pub struct RecordedReceipts {
    pub written: u64,
    pub refused: u64,
    pub settled: Vec<usize>,
    pub returned: Vec<usize>,
}

pub struct RecordingReceipt(pub Arc<Mutex<RecordedReceipts>>);

impl Receipts for RecordingReceipt {
    fn lines_written(&self, _: FrameName<'_>, lines: u64) {
        self.0.lock().written += lines;
    }
    fn lines_refused(&self, _: FrameName<'_>, lines: u64) {
        self.0.lock().refused += lines;
    }
    fn settled(&self, _: FrameName<'_>, messages: MessageSet, _: u32) {
        self.0.lock().settled.extend(places(messages));
    }
    fn returned(&self, _: FrameName<'_>, messages: MessageSet) -> u32 {
        self.0.lock().returned.extend(places(messages));
        0
    }
    fn set_apart(&self, _: FrameName<'_>, _: MessageSet, _: usize) {}
}

/// The places of the messages of a set.
pub fn places(messages: MessageSet) -> impl Iterator<Item = usize> {
    (0..64).filter(move |place| messages & 1 << place != 0)
}

/// Pending lines of messages, each with an affinity and some lines.
pub fn pending_lines(
    messages: &[(u32, Vec<String>)],
    arrived: Instant,
) -> (Arc<PendingLines>, Arc<Mutex<RecordedReceipts>>) {
    let position = StreamPosition { stream: 0, number: 0, returns: 0, is_last: false };
    pending_lines_at(position, false, messages, arrived)
}

/// The same as `pending_lines`, with a position in their stream.
pub fn pending_lines_at(
    position: StreamPosition,
    overtakes: bool,
    messages: &[(u32, Vec<String>)],
    arrived: Instant,
) -> (Arc<PendingLines>, Arc<Mutex<RecordedReceipts>>) {
    let recorded = Arc::new(Mutex::new(RecordedReceipts::default()));
    let (mut lines, mut of) = (Vec::new(), Vec::new());
    for (affinity, message) in messages {
        for line in message {
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
        }
        of.push(DurableMessage {
            topic: "t".into(),
            received_ns: 0,
            lines_end: lines.len() as u32,
            line_count: message.len() as u32,
            affinity: *affinity,
        });
    }
    let wanted = message_set(0..of.len());
    let frame = FrameLines {
        database: "db".into(),
        account: Arc::new(Account::new("acme".into())),
        guest: "g".into(),
        lines,
        wanted,
        messages: of,
        overtakes,
        arrived,
    };
    let durable = Durable::new(
        position,
        frame,
        Arc::new(RecordingReceipt(recorded.clone())),
        &Synced::by_setting_never(),
    );
    (Arc::new(PendingLines::new(durable, unlimited().charge(0))), recorded)
}

/// One message of so many lines, of so many bytes each, for a database.
pub fn durable_of(database: &str, lines: usize, bytes: usize, arrived: Instant) -> Durable {
    let line = format!("m f=\"{}\" 1\n", "x".repeat(bytes));
    let lines = line.repeat(lines);
    let message = DurableMessage {
        topic: "t".into(),
        received_ns: 0,
        lines_end: lines.len() as u32,
        line_count: lines.matches('\n').count() as u32,
        affinity: 0,
    };
    let frame = FrameLines {
        database: database.into(),
        account: Arc::new(Account::new("acme".into())),
        guest: "g".into(),
        lines: lines.into_bytes(),
        wanted: message_set(0..1),
        messages: vec![message],
        overtakes: false,
        arrived,
    };
    let position = StreamPosition { stream: 0, number: 0, returns: 0, is_last: false };
    let receipt = Arc::new(RecordingReceipt(Arc::default()));
    Durable::new(position, frame, receipt, &Synced::by_setting_never())
}

/// Pending lines of one device: messages of so many lines.
pub fn lines_of_one_device(line_counts: &[u32], arrived: Instant) -> Arc<PendingLines> {
    let messages: Vec<_> =
        line_counts.iter().map(|&count| (0, vec!["m f=1 1".to_owned(); count as usize])).collect();
    pending_lines(&messages, arrived).0
}

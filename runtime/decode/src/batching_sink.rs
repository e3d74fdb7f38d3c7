//! A sink that sends the batches of several tenants together: the spool is locked and woken once for
//! all of them.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use crate::sink::{BirthRequests, DecodeSink};
use tidegate_core::ack::token::AckToken;
use tidegate_core::batching::{DECODE_DELAY, LARGE_GROUP};
use tidegate_core::books::Account;
use tidegate_core::message::{CheckedBatch, RefusedMessage};

/// Keeps batches until they are many, or the first has waited; sends the rest when it is dropped.
pub struct BatchingSink<'a> {
    sink: &'a dyn DecodeSink,
    buffered: RefCell<BufferedBatches>,
}

#[derive(Default)]
struct BufferedBatches {
    batches: Vec<CheckedBatch>,
    messages: usize,
    since: Option<Instant>,
}

impl<'a> BatchingSink<'a> {
    pub fn new(sink: &'a dyn DecodeSink) -> Self {
        Self { sink, buffered: RefCell::default() }
    }
}

impl DecodeSink for BatchingSink<'_> {
    fn lines(&self, batches: Vec<CheckedBatch>) {
        let enough = {
            let mut buffered = self.buffered.borrow_mut();
            buffered.messages += batches.iter().map(|batch| batch.messages.len()).sum::<usize>();
            buffered.batches.extend(batches);
            let since = *buffered.since.get_or_insert_with(Instant::now);
            buffered.messages >= LARGE_GROUP || since.elapsed() >= DECODE_DELAY
        };
        if enough {
            self.flush();
        }
    }

    fn flush(&self) {
        let buffered = self.buffered.take();
        if !buffered.batches.is_empty() {
            self.sink.lines(buffered.batches);
        }
    }

    fn empty(&self, messages: Vec<AckToken>, account: &Arc<Account>) {
        self.sink.empty(messages, account);
    }

    fn refused(&self, messages: Vec<RefusedMessage>) {
        self.sink.refused(messages);
    }

    fn birth_requests(&self) -> Option<&dyn BirthRequests> {
        self.sink.birth_requests()
    }
}

impl Drop for BatchingSink<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::DecodeSink;
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::time::{Duration, Instant};
    use tidegate_core::ack::token::AckToken;
    use tidegate_core::ack::tracker::AckTracker;
    use tidegate_core::ack::window::ReceiveWindow;
    use tidegate_core::batching::LARGE_GROUP;
    use tidegate_core::books::Account;
    use tidegate_core::message::{CheckedBatch, CheckedMessage, RefusedMessage};
    use tidegate_core::tenant::Tenant;
    use tidegate_core::tenant::settings::TenantSettings;

    /// The tenants of the batches that each call brought.
    #[derive(Default)]
    struct Calls(RefCell<Vec<Vec<String>>>);

    impl DecodeSink for Calls {
        fn lines(&self, batches: Vec<CheckedBatch>) {
            let tenants = batches.iter().map(|batch| batch.tenant.id.to_string());
            self.0.borrow_mut().push(tenants.collect());
        }

        fn empty(&self, _: Vec<AckToken>, _: &Arc<Account>) {}

        fn refused(&self, _: Vec<RefusedMessage>) {}
    }

    fn batch(tenant: &str, messages: usize) -> CheckedBatch {
        let connection = AckTracker::new(Arc::new(ReceiveWindow::new(1_000, 1 << 20)));
        let message = |id: usize| CheckedMessage {
            topic: "t".into(),
            received_ns: 1,
            lines_end: 6,
            line_count: 1,
            affinity: 0,
            token: connection.receive(id as u16 + 1, 1),
        };
        CheckedBatch::new(
            "db".into(),
            Arc::new(Tenant::new(
                tenant.into(),
                Arc::new(Account::new(tenant.into())),
                TenantSettings::plain(Ok("db".into())),
            )),
            "g".into(),
            b"m f=1\n".to_vec(),
            (0..messages).map(message).collect(),
        )
    }

    #[test]
    fn batches_go_on_together_in_their_order_and_none_is_left_behind() {
        let calls = Calls::default();
        let sink = BatchingSink::new(&calls);
        sink.buffered.borrow_mut().since = Some(Instant::now() + Duration::from_secs(60));
        for tenant in ["a", "b", "a"] {
            sink.lines(vec![batch(tenant, 1)]);
        }
        assert!(calls.0.borrow().is_empty());
        drop(sink);
        assert_eq!(*calls.0.borrow(), [["a", "b", "a"]]);
    }

    #[test]
    fn many_messages_and_one_that_has_waited_go_on_at_once() {
        let calls = Calls::default();
        let sink = BatchingSink::new(&calls);
        sink.buffered.borrow_mut().since = Some(Instant::now() + Duration::from_secs(60));
        sink.lines(vec![batch("a", LARGE_GROUP - 1)]);
        sink.lines(vec![batch("b", 1)]);
        assert_eq!(*calls.0.borrow(), [["a", "b"]]);
        sink.buffered.borrow_mut().since = Instant::now().checked_sub(DECODE_DELAY);
        sink.lines(vec![batch("c", 1)]);
        assert_eq!(*calls.0.borrow(), [vec!["a", "b"], vec!["c"]]);
    }

    #[test]
    fn nothing_is_kept_once_later_messages_go_another_way() {
        let calls = Calls::default();
        let sink = BatchingSink::new(&calls);
        sink.buffered.borrow_mut().since = Some(Instant::now() + Duration::from_secs(60));
        sink.lines(vec![batch("a", 1)]);
        DecodeSink::flush(&sink);
        assert_eq!(*calls.0.borrow(), [["a"]]);
    }
}

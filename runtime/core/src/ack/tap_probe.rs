//! The probe that a tap puts on a message: it goes with the message's token and reports how far the message came.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

/// A message as it was when the probe was put on it.
#[derive(Debug, Default)]
pub struct ProbedMessage {
    pub topic: String,
    pub payload: Bytes,
    /// The size on the wire.
    pub payload_bytes: usize,
    pub received_ns: i64,
    /// The way into the gateway, by its name in the entries of quarantine.
    pub via: &'static str,
    /// A bit for each viewer that the probe is for.
    pub viewers: u32,
}

/// The tap of a probe.
pub trait ProbeSink: Debug + Send + Sync {
    /// Takes a message whose token was dropped before a joint of the pipeline took the probe: it waits, or it was
    /// given up. Must not block.
    fn unsettled(&self, message: ProbedMessage);
}

/// A probe on one message.
#[derive(Debug)]
pub struct TapProbe {
    message: Option<ProbedMessage>,
    sink: Arc<dyn ProbeSink>,
}

impl TapProbe {
    pub fn new(message: ProbedMessage, sink: Arc<dyn ProbeSink>) -> Self {
        Self { message: Some(message), sink }
    }

    /// Adds a viewer, by its bit.
    pub fn add_viewer(&mut self, viewer: u32) {
        if let Some(message) = &mut self.message {
            message.viewers |= viewer;
        }
    }

    /// Ends the probe: the caller knows the outcome.
    pub fn finish(mut self) -> ProbedMessage {
        self.message.take().unwrap_or_default()
    }
}

impl Drop for TapProbe {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.sink.unsettled(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::token::AckToken;
    use parking_lot::Mutex;

    #[derive(Debug, Default)]
    struct Reports(Mutex<Vec<String>>);

    impl ProbeSink for Reports {
        fn unsettled(&self, message: ProbedMessage) {
            self.0.lock().push(message.topic);
        }
    }

    #[test]
    fn a_probe_that_nobody_takes_reports_its_message_with_the_end_of_the_token() {
        let reports = Arc::new(Reports::default());
        let token = |topic: &str| {
            let mut token = AckToken::trial();
            let message = ProbedMessage { topic: topic.into(), ..ProbedMessage::default() };
            token.set_probe(TapProbe::new(message, reports.clone()));
            token
        };
        let (mut taken, left) = (token("taken"), token("left"));
        assert_eq!(taken.take_probe().unwrap().finish().topic, "taken");
        drop((taken, left));
        assert_eq!(*reports.0.lock(), ["left"]);
    }
}

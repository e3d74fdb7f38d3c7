//! What a guest has answered: checked, message by message, and handed on.

use super::{Decoder, Pass, Work};
use crate::decode::DecodeSink;
use crate::decode::abi::{Outcome, Refusal, cut};
use crate::decode::state::Changes;
use crate::domain::books::Outcome as Ended;
use crate::domain::limits::{OUTPUT_BYTES_A_MESSAGE_MAX, REFUSAL_CODE_BYTES_MAX, REFUSAL_DETAIL_BYTES_MAX};
use crate::domain::line::{LineFault, Stamp};
use crate::domain::message::{Admitted, CheckedBatch, CheckedMessage, Refused};
use crate::domain::reason::Reason;
use crate::domain::slot::Slot;
use crate::domain::state::Kept;

/// What one call came to, on its way out.
pub(super) struct Made {
    checked: CheckedBatch,
    empty: Vec<Slot>,
    refused: Vec<Refused>,
}

impl Made {
    pub(super) fn new(work: &Work, bytes: usize) -> Self {
        let checked = CheckedBatch {
            database: work.database.clone(),
            tenant: work.tenant.clone(),
            guest: work.route.guest.tag.clone(),
            lines: Vec::with_capacity(bytes),
            messages: Vec::new(),
            kept: None,
        };
        Self { checked, empty: Vec::new(), refused: Vec::new() }
    }

    /// What a route that keeps state leaves beside its lines.
    pub(super) fn kept(&mut self, work: &Work) -> &mut Kept {
        self.checked.kept.get_or_insert_with(|| Box::new(Kept::new((&*work.message_type).into())))
    }

    pub(super) fn hand_on(self, work: &Work, sink: &dyn DecodeSink) {
        if !self.checked.messages.is_empty() || self.checked.kept.is_some() {
            sink.lines(self.checked);
        }
        if !self.empty.is_empty() {
            sink.empty(self.empty, &work.tenant.account);
        }
        if !self.refused.is_empty() {
            sink.refused(self.refused);
        }
    }
}

impl Decoder {
    /// Checks the lines of each message and hands on what became of it. `changes` are what the guest set
    /// in its state: they hold for what is not refused, and the messages of a device behind one that is
    /// are decoded again, for they may have seen what it had set.
    pub(super) fn check(
        &mut self,
        work: &Work,
        messages: Vec<Admitted>,
        lines: &[u8],
        outcomes: Vec<Outcome>,
        mut changes: Option<Changes>,
        sink: &dyn DecodeSink,
    ) {
        let mut made = Made::new(work, lines.len() + messages.len() * 80);
        let (mut misled, mut again) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (index, (message, outcome)) in messages.into_iter().zip(outcomes).enumerate() {
            if misled.contains(&message.device.affinity) {
                if let Outcome::Lines(end) = outcome {
                    start = end as usize;
                }
                again.push(message);
                continue;
            }
            let writes = changes.as_mut().map(|changes| changes.take(index as u32)).unwrap_or_default();
            let verdict = match outcome {
                Outcome::Lines(end) => {
                    let own = &lines[start..end as usize];
                    start = end as usize;
                    self.check_one(work, &message, own, &mut made.checked.lines)
                }
                Outcome::Refused(refusal) => Err((Reason::GuestRefused, refusal_detail(&refusal))),
            };
            if let Some(changes) = &changes {
                match &verdict {
                    Ok(lines) => {
                        let outcome = if *lines == 0 { Ended::Empty } else { Ended::Lines };
                        message.slot.note_decoded(&message.topic, &message.payload, outcome);
                        writes.iter().for_each(|write| changes.shelf.apply(write.clone()));
                        made.kept(work).writes.extend(writes);
                    }
                    // The version before may set something too.
                    Err(_) if !writes.is_empty() || work.fallback.is_some() => {
                        misled.push(message.device.affinity);
                    }
                    Err(_) => {}
                }
            }
            match verdict {
                Ok(0) if changes.is_some() => made.kept(work).messages.push((message.slot, Ended::Empty)),
                Ok(0) => made.empty.push(message.slot),
                Ok(line_count) => made.checked.messages.push(CheckedMessage {
                    topic: message.topic,
                    received_ns: message.received_ns,
                    lines_end: made.checked.lines.len() as u32,
                    line_count,
                    affinity: message.device.affinity.folded(),
                    slot: message.slot,
                }),
                Err(fault) if work.fallback.is_some() => {
                    // What stands before it goes first.
                    std::mem::replace(&mut made, Made::new(work, 0)).hand_on(work, sink);
                    self.fail(work, message, fault, sink);
                }
                Err((reason, detail)) => {
                    work.route.state.stats.note_failure(reason);
                    let tag = work.route.guest.tag.clone();
                    made.refused.push(message.refused(reason, detail, Some(tag)));
                }
            }
        }
        made.hand_on(work, sink);
        if !again.is_empty() {
            self.decode_each(work, again, sink, Pass::Again);
        }
    }

    /// Checks the lines of one message; gives how many there are.
    fn check_one(
        &mut self,
        work: &Work,
        message: &Admitted,
        own: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<u32, (Reason, String)> {
        if own.len() > OUTPUT_BYTES_A_MESSAGE_MAX {
            let detail = format!("made {} bytes of lines; at most {OUTPUT_BYTES_A_MESSAGE_MAX}", own.len());
            return Err((Reason::GuestOutput, detail));
        }
        let identity_tags = message.device.identity_tags.as_deref().unwrap_or_default();
        let dialect = self.guests.settings().dialect;
        let rules = work.rules.lines.as_ref();
        let stamp = Stamp { identity_tags, received_ns: message.received_ns, dialect, rules };
        let verdict = |fault: LineFault| (fault.kind.reason(), fault.to_string());
        if !work.route.rules.keep_rest {
            return self.checker.check(own, stamp, into).map_err(verdict);
        }
        let mut faults = Vec::new();
        let count = self.checker.check_keeping_rest(own, stamp, into, &mut faults).map_err(verdict)?;
        let guest = &work.route.guest.tag;
        for fault in &faults {
            tracing::debug!(target: "guest", %guest, topic = message.topic, %fault, "a line was left out");
        }
        match faults.into_iter().next() {
            Some(fault) if count == 0 => Err(verdict(fault)),
            _ => Ok(count),
        }
    }
}

/// `CODE: detail`, each within its bound, and the code of the form that machines rely on.
fn refusal_detail(refusal: &Refusal) -> String {
    let mut code: String = cut(&refusal.code, REFUSAL_CODE_BYTES_MAX)
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        })
        .collect();
    if code.is_empty() {
        code.push_str("REFUSED");
    }
    format!("{code}: {}", cut(&refusal.detail, REFUSAL_DETAIL_BYTES_MAX))
}

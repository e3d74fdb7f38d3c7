//! The line check: a message's own lines, as its guest gave them.

use crate::decoder::route_context::RouteContext;
use crate::limits::REFUSAL_CODE_BYTES_MAX;
use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::Refusal;
use tidegate_core::detail::truncate as cut;
use tidegate_core::limits::{OUTPUT_BYTES_A_MESSAGE_MAX, REFUSAL_DETAIL_BYTES_MAX};
use tidegate_core::line_protocol::{Dialect, LineChecker, LineContext, LineFault};
use tidegate_core::message::Admitted;
use tidegate_core::reason::Reason;

/// Checks lines against the rules of a tenant and a route.
pub(super) struct LineCheck {
    checker: LineChecker,
    dialect: Dialect,
}

impl LineCheck {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { checker: LineChecker::default(), dialect }
    }

    /// Checks the lines of one message; gives how many there are.
    pub(super) fn check(
        &mut self,
        context: &RouteContext,
        message: &Admitted,
        own: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<u32, (Reason, String)> {
        if own.len() > OUTPUT_BYTES_A_MESSAGE_MAX {
            let detail = format!("made {} bytes of lines; at most {OUTPUT_BYTES_A_MESSAGE_MAX}", own.len());
            return Err((Reason::GuestOutput, detail));
        }
        let identity_tags = message.device.identity_tags.as_deref().unwrap_or_default();
        let dialect = self.dialect;
        let rules = context.rules.lines.as_ref();
        let stamp = LineContext { identity_tags, received_ns: message.received_ns, dialect, rules };
        let verdict = |fault: LineFault| (fault.kind.reason(), fault.to_string());
        if !context.route.version.rules.keep_rest {
            return self.checker.check(own, stamp, into).map_err(verdict);
        }
        let mut faults = Vec::new();
        let count = self.checker.check_keeping_rest(own, stamp, into, &mut faults).map_err(verdict)?;
        let guest = &context.route.version.guest.tag;
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
pub(super) fn refusal_detail(refusal: &Refusal) -> String {
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

//! One message through a host of decoders, as the stream would take it.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_guest::{Lines, Route};
use tidegate_mapping::Mapping;

use crate::config::Config;
use crate::core::reason::Reason;
use crate::core::receive_clock::wall_ns;
use crate::decode::DecodeHost;
use crate::explain::dry_run::DryRun;
use crate::explain::mapping_trace::{MappedValue, MappingTrace};
use crate::explain::verdict::{ExplainRequest, ExplainVerdict, RowOverride};
use crate::limits::{PLAYGROUND_VALUE_CHARACTERS_MAX, PLAYGROUND_VALUES_MAX};
use crate::rollout::builtin;

/// A message to try.
#[derive(Debug)]
pub struct TrialMessage {
    pub config: Arc<Config>,
    pub topic: String,
    pub tenant: String,
    pub message_type: String,
    pub payload: Bytes,
    pub site: String,
}

/// The verdict on a message that was tried.
#[derive(Debug)]
pub struct TrialVerdict {
    pub verdict: ExplainVerdict,
    pub received_ns: i64,
    /// None: the decoder is no mapping, or did not come to an end.
    pub mapped: Option<MappedPayload>,
}

/// The values that a mapping looked for in a payload.
#[derive(Debug)]
pub struct MappedPayload {
    pub values: Vec<MappedValue>,
    /// Values beside those.
    pub left_out: usize,
}

impl TrialMessage {
    pub fn judge(&self, host: Arc<DecodeHost>) -> TrialVerdict {
        let row = RowOverride {
            tenant_id: None,
            device_id: None,
            site_id: self.site.clone(),
            status: "ACTIVE".to_owned(),
            provision_token_hash: None,
        };
        let received_ns = wall_ns();
        let verdict = DryRun::of_host(&self.config, host.clone()).judge(ExplainRequest {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            received_ns,
            registry_row: Some(Some(row)),
        });
        let mapped = self.mapped(&host, &verdict, received_ns);
        TrialVerdict { verdict, received_ns, mapped }
    }

    /// The values of the built-in mapping. It is watched outside of the sandbox, so only on a payload with which the same
    /// code has come to its end inside, within the limits there.
    fn mapped(&self, host: &DecodeHost, verdict: &ExplainVerdict, received_ns: i64) -> Option<MappedPayload> {
        let has_ended = match verdict.reason {
            None => true,
            Some(reason) => {
                matches!(reason, Reason::GuestRefused | Reason::BadLine | Reason::IdentityInLine)
            }
        };
        let payload = verdict.decoder_payload.as_ref().filter(|_| has_ended)?;
        let version = host.table().route(&self.tenant, &self.message_type)?.version;
        builtin::of_digest(&version.guest.digest).filter(|built_in| built_in.name == "mapping")?;
        let route = Route {
            tenant: self.tenant.clone(),
            message_type: self.message_type.clone(),
            options: version.rules.options.clone(),
        };
        let mapping = Mapping::read(&route).ok()?;
        let mut trace = MappingTrace::of_at_most(PLAYGROUND_VALUES_MAX, PLAYGROUND_VALUE_CHARACTERS_MAX);
        // Its refusal is in the verdict.
        let _ = mapping.decode_with(payload, received_ns, &mut Lines::default(), &mut trace);
        Some(MappedPayload { values: trace.values(payload), left_out: trace.left_out() })
    }
}

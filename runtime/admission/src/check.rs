//! One message, judged: the checks in their order, and what comes of it.

use crate::admission::Admission;
use crate::outcome::{
    AuthFailure, CheckError, LookupSource, MessageView, NotAdmitted, RateLimitMode, Sender,
};
use crate::registry::RegistryRow;
use crate::settings::Snapshot;
use tidegate_core::detail::Detail;
use tidegate_core::message::Via;
use tidegate_core::reason::Reason;
use tidegate_core::token_bucket::Rate;

impl Admission {
    /// What would become of a message. No rate limit, nothing is counted. `row` stands in for the
    /// registry's answer; without it a device that would have to be asked about is refused as
    /// `RegistryUnavailable`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn judge(
        &self,
        question: MessageView<'_>,
        row: Option<Option<RegistryRow>>,
    ) -> Result<Sender, CheckError> {
        let ask = row.map_or(LookupSource::Registry, LookupSource::Row);
        self.check_at(&self.snapshot(), question, ask, RateLimitMode::Off).map_err(|stop| match stop {
            NotAdmitted::Refused(refusal) => refusal,
            NotAdmitted::Cold(places) => CheckError {
                reason: Reason::RegistryUnavailable,
                detail: "the registry was not asked".into(),
                is_proven: false,
                places: Some(places),
            },
        })
    }

    pub(super) fn check_at(
        &self,
        settings: &Snapshot,
        question: MessageView<'_>,
        ask: LookupSource<'_>,
        limit: RateLimitMode,
    ) -> Result<Sender, NotAdmitted> {
        let refuse_as = |is_proven, reason, detail: String, places| {
            let detail = Detail::redacted(&detail, question.payload);
            Err(NotAdmitted::Refused(CheckError { reason, detail, is_proven, places }))
        };
        let refuse = |reason, detail, places| refuse_as(question.via == Via::Proven, reason, detail, places);
        let places = self.settings.template.read(question.topic);
        let holds =
            settings.limits_for(places.as_ref().ok().map(|places| &question.topic[places.tenant.clone()]));
        if question.payload_bytes as i64 > holds.payload_bytes_max {
            let (bytes, most) = (question.payload_bytes, holds.payload_bytes_max);
            let detail = format!("the payload has {bytes} bytes; at most {most} are allowed");
            return refuse(Reason::PayloadTooLarge, detail, places.ok());
        }
        let places = match places {
            Ok(places) => places,
            Err(error) => return refuse(Reason::BadTopicFormat, error.to_string(), None),
        };
        let tenant = &question.topic[places.tenant.clone()];
        let device = &question.topic[places.device.clone()];
        let key = self.device_key(tenant, device);
        if let (RateLimitMode::Take(now_s), Some(rate)) = (limit, holds.rate)
            && !self.buckets.take(key, rate, now_s)
        {
            return refuse(Reason::RateLimited, rate_detail(rate), Some(places));
        }
        match self.authenticate(&question, &places, tenant, device, key, ask) {
            Ok((known, device)) => {
                // Only what passes takes from the tenant's bucket: nobody can silence it from outside.
                if let (RateLimitMode::Take(now_s) | RateLimitMode::Taken(now_s), Some(rate)) =
                    (limit, holds.tenant_rate)
                    && !self.tenant_buckets.take(self.tenant_key(tenant), rate, now_s)
                {
                    if let Some(rate) = holds.rate {
                        self.buckets.give_back(key, rate, now_s);
                    }
                    let detail = format!("all devices of the tenant together: {}", rate_detail(rate));
                    return refuse(Reason::RateLimited, detail, Some(places));
                }
                Ok(Sender { tenant: known, device, places })
            }
            Err(AuthFailure::Wait) => Err(NotAdmitted::Cold(places)),
            Err(AuthFailure::Refuse(reason, detail, is_proven)) => {
                // Only what passes takes from the device's bucket; what is refused takes from a
                // second one, so that nobody can silence a device under its name.
                if let (RateLimitMode::Take(now_s) | RateLimitMode::Taken(now_s), Some(rate)) =
                    (limit, holds.rate)
                    && !self.buckets.refuse(key, rate, now_s)
                {
                    return refuse(Reason::RateLimited, rate_detail(rate), Some(places));
                }
                refuse_as(is_proven || question.via == Via::Proven, reason, detail, Some(places))
            }
        }
    }
}

fn rate_detail(rate: Rate) -> String {
    format!("more than {} messages a second, after a burst of {}", rate.per_s, rate.burst)
}

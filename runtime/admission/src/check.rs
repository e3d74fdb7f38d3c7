//! The checks of one message, in the order that users script against.

use crate::admission::Admission;
use crate::outcome::{
    AuthFailure, CheckError, LookupSource, MessageView, NotAdmitted, RateLimitMode, Sender,
};
use crate::registry::RegistryRow;
use crate::settings::Snapshot;
use tidegate_core::detail::Detail;
use tidegate_core::message::{Received, Via};
use tidegate_core::reason::Reason;
use tidegate_core::token_bucket::Rate;

impl Admission {
    /// Checks a message for `explain`, without rate limits and counters. `row` is used in place of the
    /// registry's answer; without it a device that is not in the cache is refused as
    /// `RegistryUnavailable`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        &self,
        message: MessageView<'_>,
        row: Option<Option<RegistryRow>>,
    ) -> Result<Sender, CheckError> {
        let source = row.map_or(LookupSource::Registry, LookupSource::Row);
        let checked = self.check_view(&self.snapshot(), message, source, RateLimitMode::Off);
        checked.map_err(|error| match error {
            NotAdmitted::Refused(error) => error,
            NotAdmitted::Cold(fields) => CheckError {
                reason: Reason::RegistryUnavailable,
                detail: "the registry was not asked".into(),
                is_proven: false,
                fields: Some(fields),
            },
        })
    }

    /// Checks a message of the stream; `limit` limits the time.
    pub(super) fn check_at(
        &self,
        settings: &Snapshot,
        message: &Received,
        source: LookupSource<'_>,
        limit: RateLimitMode,
    ) -> Result<Sender, NotAdmitted> {
        self.check_view(settings, MessageView::new(message), source, limit)
    }

    fn check_view(
        &self,
        settings: &Snapshot,
        message: MessageView<'_>,
        source: LookupSource<'_>,
        limit: RateLimitMode,
    ) -> Result<Sender, NotAdmitted> {
        let refuse_as = |is_proven, reason, detail: String, fields| {
            let detail = Detail::redacted(&detail, message.payload);
            Err(NotAdmitted::Refused(CheckError { reason, detail, is_proven, fields }))
        };
        let refuse = |reason, detail, fields| refuse_as(message.via == Via::Proven, reason, detail, fields);
        let fields = self.settings.template.read(message.topic);
        let limits =
            settings.limits_for(fields.as_ref().ok().map(|fields| &message.topic[fields.tenant.clone()]));
        if message.payload_bytes as i64 > limits.payload_bytes_max {
            let (bytes, most) = (message.payload_bytes, limits.payload_bytes_max);
            let detail = format!("the payload has {bytes} bytes; at most {most} are allowed");
            return refuse(Reason::PayloadTooLarge, detail, fields.ok());
        }
        let fields = match fields {
            Ok(fields) => fields,
            Err(error) => return refuse(Reason::BadTopicFormat, error.to_string(), None),
        };
        let tenant = &message.topic[fields.tenant.clone()];
        let device = &message.topic[fields.device.clone()];
        let key = self.device_key(tenant, device);
        if let (RateLimitMode::Take(now_s), Some(rate)) = (limit, limits.rate)
            && !self.device_rates.take(key, rate, now_s)
        {
            return refuse(Reason::RateLimited, rate_detail(rate), Some(fields));
        }
        let message_type = &message.topic[fields.message_type.clone()];
        let credentials = settings.credentials.credentials_of(message_type, message.via);
        match self.authenticate(&message, credentials, tenant, device, key, source) {
            Ok((known_tenant, device)) => {
                // Only a message that passes takes from the tenant's bucket: no stranger can silence it.
                if let (RateLimitMode::Take(now_s) | RateLimitMode::Taken(now_s), Some(rate)) =
                    (limit, limits.tenant_rate)
                    && !self.tenant_rates.take(self.tenant_key(tenant), rate, now_s)
                {
                    if let Some(rate) = limits.rate {
                        self.device_rates.release(key, rate, now_s);
                    }
                    let detail = format!("all devices of the tenant together: {}", rate_detail(rate));
                    return refuse(Reason::RateLimited, detail, Some(fields));
                }
                Ok(Sender { tenant: known_tenant, device, fields })
            }
            Err(AuthFailure::Wait) => Err(NotAdmitted::Cold(fields)),
            Err(AuthFailure::Refuse(reason, detail, is_proven)) => {
                // A refused message takes from a second bucket, so that nobody can silence a device
                // under its name.
                if let (RateLimitMode::Take(now_s) | RateLimitMode::Taken(now_s), Some(rate)) =
                    (limit, limits.rate)
                    && !self.device_rates.refuse(key, rate, now_s)
                {
                    return refuse(Reason::RateLimited, rate_detail(rate), Some(fields));
                }
                refuse_as(is_proven || message.via == Via::Proven, reason, detail, Some(fields))
            }
        }
    }
}

fn rate_detail(rate: Rate) -> String {
    format!("more than {} messages a second, after a burst of {}", rate.per_s, rate.burst)
}

//! The checks of one message, in the order that users script against.

use crate::admission::Admission;
use crate::limits::RATE_WAIT_MAX_S;
use crate::outcome::{
    AuthFailure, CheckError, LookupSource, MessageView, NotAdmitted, RateLimitMode, Sender,
};
use crate::registry::RegistryRow;
use crate::settings::Snapshot;
use tidegate_core::detail::Detail;
use tidegate_core::message::{Received, Via};
use tidegate_core::reason::Reason;
use tidegate_core::token_bucket::Rate;
use tidegate_json::TapeWriter;

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
        let (settings, mut tape) = (self.snapshot(), TapeWriter::default());
        let checked = self.check_view(&settings, message, source, RateLimitMode::Off, &mut tape);
        checked.map_err(|error| match error {
            NotAdmitted::Refused(error) => error,
            NotAdmitted::Cold { fields, .. } => CheckError {
                reason: Reason::RegistryUnavailable,
                detail: "the registry was not asked".into(),
                is_proven: false,
                is_known: false,
                fields: Some(fields),
            },
            NotAdmitted::OverRate(_) => unreachable!("no rate holds"),
        })
    }

    /// Checks a message of the stream; `limit` limits the time. `tape` is memory for its tape.
    pub(super) fn check_at(
        &self,
        settings: &Snapshot,
        message: &Received,
        source: LookupSource<'_>,
        limit: RateLimitMode,
        tape: &mut TapeWriter,
    ) -> Result<Sender, NotAdmitted> {
        self.check_view(settings, MessageView::new(message), source, limit, tape)
    }

    fn check_view(
        &self,
        settings: &Snapshot,
        message: MessageView<'_>,
        source: LookupSource<'_>,
        limit: RateLimitMode,
        tape: &mut TapeWriter,
    ) -> Result<Sender, NotAdmitted> {
        let refuse = |reason, detail: String, (is_proven, is_known), fields| {
            let detail = Detail::redacted(&detail, message.payload);
            Err(NotAdmitted::Refused(CheckError { reason, detail, is_proven, is_known, fields }))
        };
        // A device that proved itself to the listener is in the registry.
        let by_listener = message.via == Via::Proven;
        // The listener takes what the subscription would deliver.
        let fields = match message.via {
            Via::Broker => self.settings.topics.read(message.topic),
            Via::Listener | Via::Proven => self.settings.topics.read_delivered(message.topic),
        };
        let limits = settings.limits_for(fields.as_ref().ok().map(|fields| fields.tenant.of(message.topic)));
        if message.payload_bytes as i64 > limits.payload_bytes_max {
            let (bytes, most) = (message.payload_bytes, limits.payload_bytes_max);
            let detail = format!("the payload has {bytes} bytes; at most {most} are allowed");
            let is_known = by_listener
                || fields.as_ref().is_ok_and(|fields| {
                    let (tenant, device) = (fields.tenant.of(message.topic), fields.device.of(message.topic));
                    let key = self.device_key(tenant, device);
                    self.is_registered(tenant, device, key, &source) == Some(true)
                });
            return refuse(Reason::PayloadTooLarge, detail, (by_listener, is_known), fields.ok());
        }
        let fields = match fields {
            Ok(fields) => fields,
            Err(error) => {
                return refuse(Reason::BadTopicFormat, error.to_string(), (by_listener, by_listener), None);
            }
        };
        let (tenant, device) = (fields.tenant.of(message.topic), fields.device.of(message.topic));
        let key = self.device_key(tenant, device);
        let over_rate = match (limit, limits.rate) {
            (RateLimitMode::Take(now_s), Some(rate)) if !self.device_rates.take(key, rate, now_s) => {
                let wait_s = self.device_rates.wait_s(key, rate, now_s);
                if self.settings.slows(message.via) && wait_s <= RATE_WAIT_MAX_S {
                    return Err(NotAdmitted::OverRate(wait_s));
                }
                Some(rate)
            }
            (RateLimitMode::Exceeded, rate) => rate,
            _ => None,
        };
        let message_type = fields.message_type.of(message.topic);
        let template = self.settings.topics.template(&fields);
        let credentials = match template.envelope().has_credentials() {
            true => Ok(settings.credentials.credentials_of(message_type, message.via)),
            false => self.credentials_of_source(message.via),
        };
        let checked = credentials.and_then(|credentials| {
            let names = (tenant, message_type);
            let (claims, content) = self.open_envelope(&message, credentials, template, names, tape)?;
            Ok((self.authenticate(&claims, (tenant, device, key), source.clone())?, content))
        });
        let checked = match (checked, over_rate) {
            (Err(AuthFailure::Wait), over_rate) => {
                return Err(NotAdmitted::Cold { fields, over_rate: over_rate.is_some() });
            }
            (Ok(_), Some(rate)) => {
                return refuse(Reason::RateLimited, rate_detail(rate), (true, true), Some(fields));
            }
            (Ok(((known_tenant, device), content)), None) => Ok((known_tenant, device, content)),
            (Err(AuthFailure::Refuse { reason, detail, is_proven, is_known }), over_rate) => {
                let is_known = if is_known || by_listener {
                    true
                } else {
                    match self.is_registered(tenant, device, key, &source) {
                        // The registry says if the message is a device's, and is to be kept.
                        None if !matches!(limit, RateLimitMode::Off) => {
                            return Err(NotAdmitted::Cold { fields, over_rate: over_rate.is_some() });
                        }
                        answer => answer == Some(true),
                    }
                };
                let sender = (is_proven || by_listener, is_known);
                if let Some(rate) = over_rate {
                    return refuse(Reason::RateLimited, rate_detail(rate), sender, Some(fields));
                }
                Err((reason, detail, sender))
            }
        };
        match checked {
            Ok((known_tenant, device, content)) => {
                // Only a message that passes takes from the tenant's bucket: no stranger can silence it.
                let Some(rate) = limits.tenant_rate else {
                    let tape = tape.entries().into();
                    return Ok(Sender { tenant: known_tenant, device, content, fields, tape });
                };
                let (slows, tenant_key) = (self.settings.slows(message.via), self.tenant_key(tenant));
                match limit {
                    // It has waited for the registry, and cannot go back to its source.
                    RateLimitMode::Taken(now_s) if slows => self.tenant_rates.owe(tenant_key, rate, now_s),
                    RateLimitMode::Take(now_s) | RateLimitMode::Taken(now_s)
                        if !self.tenant_rates.take(tenant_key, rate, now_s) =>
                    {
                        if let Some(rate) = limits.rate {
                            self.device_rates.release(key, rate, now_s);
                        }
                        let wait_s = self.tenant_rates.wait_s(tenant_key, rate, now_s);
                        if slows && wait_s <= RATE_WAIT_MAX_S {
                            return Err(NotAdmitted::OverRate(wait_s));
                        }
                        let detail = format!("all devices of the tenant together: {}", rate_detail(rate));
                        return refuse(Reason::RateLimited, detail, (true, true), Some(fields));
                    }
                    _ => {}
                }
                Ok(Sender { tenant: known_tenant, device, content, fields, tape: tape.entries().into() })
            }
            Err((reason, detail, sender)) => {
                // A refused message takes from a second bucket, so that nobody can silence a device
                // under its name.
                if let (RateLimitMode::Take(now_s) | RateLimitMode::Taken(now_s), Some(rate)) =
                    (limit, limits.rate)
                    && !self.device_rates.refuse(key, rate, now_s)
                {
                    return refuse(Reason::RateLimited, rate_detail(rate), sender, Some(fields));
                }
                refuse(reason, detail, sender, Some(fields))
            }
        }
    }
}

fn rate_detail(rate: Rate) -> String {
    format!("more than {} messages a second, after a burst of {}", rate.per_s, rate.burst)
}

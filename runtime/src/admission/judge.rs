//! One message, judged: the checks in their order, and what comes of it.

use std::sync::Arc;

use super::Admission;
use super::authenticate::{Ask, Turn};
use super::registry::Row;
use super::settings::Snapshot;
use crate::domain::books::Account;
use crate::domain::detail::Detail;
use crate::domain::message::{Admitted, Device, Received, Refused, Tenant, Via};
use crate::domain::rate::Rate;
use crate::domain::reason::Reason;
use crate::domain::topic::TopicPlaces;

/// What is judged of a message.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// The size on the wire, which may be more than is at hand.
    pub payload_bytes: usize,
    pub via: Via,
}

/// A message that passed: who sent it.
#[derive(Debug)]
pub struct Judged {
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    pub places: TopicPlaces,
}

/// A message that did not pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: Detail,
    /// Whether its sender has proved who it is.
    pub is_proven: bool,
    /// Where in the topic tenant and device stand, where it is readable.
    pub places: Option<TopicPlaces>,
}

/// What the rate limit is to do with a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// Nothing.
    Off,
    /// Take a token, at this time.
    Take(f64),
    /// A token was taken when the message came.
    Taken(f64),
}

/// Why a message goes no further now.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    /// The registry must be asked first.
    Cold(TopicPlaces),
}

impl Admission {
    /// What would become of a message. No rate limit, nothing is counted. `row` stands in for the
    /// registry's answer; without it a device that would have to be asked about is refused as
    /// `RegistryUnavailable`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn judge(&self, question: Question<'_>, row: Option<Option<Row>>) -> Result<Judged, Refusal> {
        let ask = row.map_or(Ask::Registry, Ask::Row);
        self.judge_at(&self.snapshot(), question, ask, Limit::Off).map_err(|stop| match stop {
            Stop::Refused(refusal) => refusal,
            Stop::Cold(places) => Refusal {
                reason: Reason::RegistryUnavailable,
                detail: "the registry was not asked".into(),
                is_proven: false,
                places: Some(places),
            },
        })
    }

    pub(super) fn judge_at(
        &self,
        settings: &Snapshot,
        question: Question<'_>,
        ask: Ask<'_>,
        limit: Limit,
    ) -> Result<Judged, Stop> {
        let refuse_as = |is_proven, reason, detail: String, places| {
            let detail = Detail::redacted(&detail, question.payload);
            Err(Stop::Refused(Refusal { reason, detail, is_proven, places }))
        };
        let refuse = |reason, detail, places| refuse_as(question.via == Via::Proven, reason, detail, places);
        let places = self.settings.template.read(question.topic);
        let holds =
            settings.holds_for(places.as_ref().ok().map(|places| &question.topic[places.tenant.clone()]));
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
        if let (Limit::Take(now_s), Some(rate)) = (limit, holds.rate)
            && !self.buckets.take(key, rate, now_s)
        {
            return refuse(Reason::RateLimited, rate_detail(rate), Some(places));
        }
        match self.authenticate(&question, &places, tenant, device, key, ask) {
            Ok((known, device)) => {
                // Only what passes takes from the tenant's bucket: nobody can silence it from outside.
                if let (Limit::Take(now_s) | Limit::Taken(now_s), Some(rate)) = (limit, holds.tenant_rate)
                    && !self.tenant_buckets.take(self.tenant_key(tenant), rate, now_s)
                {
                    if let Some(rate) = holds.rate {
                        self.buckets.give_back(key, rate, now_s);
                    }
                    let detail = format!("all devices of the tenant together: {}", rate_detail(rate));
                    return refuse(Reason::RateLimited, detail, Some(places));
                }
                Ok(Judged { tenant: known, device, places })
            }
            Err(Turn::Wait) => Err(Stop::Cold(places)),
            Err(Turn::Refuse(reason, detail, is_proven)) => {
                // Only what passes takes from the device's bucket; what is refused takes from a
                // second one, so that nobody can silence a device under its name.
                if let (Limit::Take(now_s) | Limit::Taken(now_s), Some(rate)) = (limit, holds.rate)
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

pub(super) fn question(message: &Received) -> Question<'_> {
    Question {
        topic: &message.topic,
        payload: &message.payload,
        payload_bytes: message.payload_bytes,
        via: message.via,
    }
}

pub(super) fn admit(message: Received, judged: Judged) -> Admitted {
    Admitted {
        message_type: judged.places.message_type,
        topic: message.topic,
        payload: message.payload,
        received_ns: message.received_ns,
        tenant: judged.tenant,
        device: judged.device,
        slot: message.slot,
    }
}

pub(super) fn refuse(message: Received, refusal: Refusal, account: Arc<Account>) -> Refused {
    let part = |range: &std::ops::Range<usize>| &message.topic[range.clone()];
    let (tenant, device) = match &refusal.places {
        Some(places) => (Some(part(&places.tenant).into()), Some(part(&places.device).into())),
        None => (None, None),
    };
    Refused {
        tenant,
        device,
        topic: message.topic,
        payload: message.payload,
        payload_bytes: message.payload_bytes,
        received_ns: message.received_ns,
        reason: refusal.reason,
        detail: refusal.detail,
        is_proven: refusal.is_proven,
        guest: None,
        site: None,
        via: Some(message.via),
        account,
        slot: message.slot,
    }
}

//! The last messages of a route, to try its next version on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::limits::{
    RECENT_BYTES_MAX, RECENT_CHARGE_BYTES, RECENT_MESSAGES, RECENT_OVERHEAD_BYTES, RECENT_RATE,
};
use tidegate_core::device::Device;
use tidegate_core::envelope_content::EnvelopeContent;
use tidegate_core::message::Admitted;
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::token_bucket::TokenBucket;
use tidegate_core::topic::TopicName;

/// A message that is remembered: all of it but its claim on an outcome.
#[derive(Clone, Debug)]
pub struct RecentMessage {
    pub topic: String,
    pub message_type: TopicName,
    /// A copy: the buffer that it was read into is not kept alive by it.
    pub payload: Bytes,
    pub content: Option<Arc<EnvelopeContent>>,
    pub received_ns: i64,
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
}

impl RecentMessage {
    fn memory_bytes(&self) -> usize {
        let content = self.content.as_ref().map_or(0, |content| content.memory_bytes());
        self.topic.len() + self.payload.len() + content + RECENT_OVERHEAD_BYTES
    }
}

impl From<&Admitted> for RecentMessage {
    fn from(message: &Admitted) -> Self {
        Self {
            topic: message.topic.clone(),
            message_type: message.message_type.clone(),
            payload: Bytes::copy_from_slice(&message.payload),
            content: message.content.clone(),
            received_ns: message.received_ns,
            tenant: message.tenant.clone(),
            device: message.device.clone(),
        }
    }
}

/// The ring. Of a busy route not every message is remembered, so that remembering costs nothing that
/// can be measured.
#[derive(Debug)]
pub struct RecentMessages {
    messages: VecDeque<RecentMessage>,
    /// Bytes of payloads.
    bytes: usize,
    /// Bytes of everything, charged to the route's tenant in steps.
    memory_bytes: usize,
    charge: Charge,
    began: Instant,
    bucket: TokenBucket,
}

impl RecentMessages {
    /// A ring that is charged to a tenant.
    pub fn new(memory: &Budget) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            memory_bytes: 0,
            charge: memory.empty(BudgetKind::Routes),
            began: Instant::now(),
            bucket: TokenBucket::full(RECENT_RATE, 0.0),
        }
    }

    pub fn record(&mut self, batch: &[Admitted]) {
        let now_s = self.began.elapsed().as_secs_f64();
        for message in batch {
            if !self.bucket.take(RECENT_RATE, now_s) {
                return;
            }
            if message.payload.len() > RECENT_BYTES_MAX {
                continue;
            }
            let message = RecentMessage::from(message);
            self.bytes += message.payload.len();
            self.memory_bytes += message.memory_bytes();
            self.messages.push_back(message);
            while self.messages.len() > RECENT_MESSAGES || self.bytes > RECENT_BYTES_MAX {
                self.forget_oldest();
            }
            self.adjust_charge();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            self.bytes -= oldest.payload.len();
            self.memory_bytes -= oldest.memory_bytes();
        }
    }

    /// Has the charge follow the bytes. Where the tenant has no room for more, the oldest messages go.
    fn adjust_charge(&mut self) {
        let wanted = self.memory_bytes.next_multiple_of(RECENT_CHARGE_BYTES) as u64;
        let charged = self.charge.bytes();
        if wanted < charged {
            self.charge.shrink(charged - wanted);
        } else if wanted > charged && self.charge.try_grow(wanted - charged).is_err() {
            while self.memory_bytes as u64 > charged {
                self.forget_oldest();
            }
        }
    }

    /// Oldest first.
    pub fn messages(&self) -> Vec<RecentMessage> {
        self.messages.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidegate_core::books::Account;
    use tidegate_core::device::make_device;
    use tidegate_core::device_hash::DeviceHasher;
    use tidegate_core::tenant::budget_kind::Resource;
    use tidegate_core::tenant::settings::TenantSettings;

    fn message(bytes: usize) -> Admitted {
        let account = Arc::new(Account::new("acme".into()));
        let tenant = Tenant::new("acme".into(), account, TenantSettings::plain(Ok("db".into())));
        let device = make_device("d", "s", DeviceHasher::random().hash("acme", "d"));
        let payload = Bytes::from(vec![b'x'; bytes]);
        Admitted::for_trial("topic".into(), 0..1, payload, 1, Arc::new(tenant), Arc::new(device))
    }

    #[test]
    fn messages_are_charged_to_the_routes_tenant_and_the_oldest_go_where_it_has_no_room() {
        let tenant = Budget::gateway(Resource::Memory, 1 << 30).of_tenant("acme".into(), 20_000);
        let mut recent = RecentMessages::new(&tenant);
        for bytes in 1_000..1_030 {
            recent.record(&[message(bytes)]);
            assert!(recent.memory_bytes as u64 <= tenant.used() && tenant.used() <= 20_000);
        }
        assert_eq!(tenant.used(), 2 * RECENT_CHARGE_BYTES as u64);
        let left: Vec<usize> = recent.messages().iter().map(|message| message.payload.len()).collect();
        assert!(left.len() > 10 && left.len() < 20 && left.last() == Some(&1_029), "{left:?}");
        drop(recent);
        assert_eq!(tenant.used(), 0);
    }
}

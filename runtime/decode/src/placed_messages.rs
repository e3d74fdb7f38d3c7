//! Messages parted by the decode threads that they go to.

use crate::limits::PLACED_BUCKETS_SEARCHED;
use crate::schedule::placement::{BucketId, Placements, Placing};
use tidegate_core::message::Admitted;

/// Messages for one thread, and how many there are of each bucket: they are in work until they leave it.
#[derive(Debug, Default)]
pub(crate) struct PlacedMessages {
    pub(crate) messages: Vec<Admitted>,
    pub(crate) counts: Vec<(BucketId, u32)>,
}

/// Messages of one bucket that came together.
struct BucketCount {
    id: BucketId,
    messages: u32,
    placing: Placing,
}

/// Enters messages into work, and parts them by their threads; each part keeps their order.
pub(crate) async fn place(
    placements: &Placements,
    threads: usize,
    messages: Vec<Admitted>,
) -> Vec<(usize, PlacedMessages)> {
    if threads == 1 {
        return vec![(0, PlacedMessages { messages, counts: Vec::new() })];
    }
    let (mut counts, of_message) = count(placements, &messages);
    for place in 0..counts.len() {
        let BucketCount { id, messages, .. } = counts[place];
        let holds = |earlier: &BucketCount| earlier.id == id;
        let holds = counts[..place].iter().rev().any(holds);
        counts[place].placing = placements.enter(id, messages, holds).await;
    }
    let mut parts: Vec<PlacedMessages> = (0..threads).map(|_| PlacedMessages::default()).collect();
    for (message, place) in messages.into_iter().zip(of_message) {
        let BucketCount { id, placing, .. } = counts[place as usize];
        let thread = match placing {
            Placing::Home(thread) => thread,
            Placing::Spread => message.device.affinity.part_of(threads),
        };
        let part = &mut parts[thread];
        match part.counts.iter_mut().rev().take(PLACED_BUCKETS_SEARCHED).find(|(known, _)| *known == id) {
            Some((_, count)) => *count += 1,
            None => part.counts.push((id, 1)),
        }
        part.messages.push(message);
    }
    parts.into_iter().enumerate().filter(|(_, part)| !part.messages.is_empty()).collect()
}

/// Counts messages by bucket; the second part is the place of each message's count. A bucket may be counted twice
/// if many others stand between its messages.
fn count(placements: &Placements, messages: &[Admitted]) -> (Vec<BucketCount>, Vec<u32>) {
    let mut counts: Vec<BucketCount> = Vec::new();
    let places = messages.iter().map(|message| {
        let id = placements.bucket(&message.tenant.id);
        let searched = counts.len().saturating_sub(PLACED_BUCKETS_SEARCHED);
        let known = counts[searched..].iter().rposition(|count| count.id == id);
        let place = known.map_or(counts.len(), |known| searched + known);
        match counts.get_mut(place) {
            Some(count) => count.messages += 1,
            None => counts.push(BucketCount { id, messages: 1, placing: Placing::Spread }),
        }
        place as u32
    });
    let places = places.collect();
    (counts, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tidegate_core::books::Account;
    use tidegate_core::device::make_device;
    use tidegate_core::device_hash::DeviceHasher;
    use tidegate_core::ids::TenantId;
    use tidegate_core::tenant::Tenant;
    use tidegate_core::tenant::settings::TenantSettings;

    fn message(tenant: &str, device: usize) -> Admitted {
        let id = TenantId::new(tenant);
        let settings = TenantSettings::plain(Ok("db".into()));
        let tenant = Arc::new(Tenant::new(id.clone(), Arc::new(Account::new(id)), settings));
        let device = device.to_string();
        let hash = DeviceHasher::new(1).hash(tenant.id.as_str(), &device);
        let device = Arc::new(make_device(&device, "s", hash));
        Admitted::for_trial("t".into(), 0..1, "x".into(), 1, tenant, device)
    }

    /// The threads that some messages of a tenant's devices go to, which leave work at once.
    async fn threads_of(placements: &Placements, tenant: &str, devices: usize) -> Vec<usize> {
        let messages = (0..devices).map(|device| message(tenant, device)).collect();
        let parts = place(placements, 4, messages).await;
        for (_, part) in &parts {
            let counted: u32 = part.counts.iter().map(|(_, count)| count).sum();
            assert_eq!(counted as usize, part.messages.len());
            part.counts.iter().for_each(|(id, count)| placements.leave(*id, *count));
        }
        parts.into_iter().map(|(thread, _)| thread).collect()
    }

    #[tokio::test]
    async fn a_tenants_messages_meet_one_thread_until_it_needs_more() {
        let placements = Placements::new(4);
        assert_eq!(threads_of(&placements, "acme", 100).await.len(), 1);
        let id = placements.bucket(&"acme".into());
        // It has used all time since the start.
        placements.record(id, Duration::from_secs(3_600));
        tokio::time::sleep(Duration::from_millis(crate::limits::PLACEMENT_WINDOW_MS)).await;
        placements.record(id, Duration::from_secs(3_600));
        assert_eq!(threads_of(&placements, "acme", 100).await, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn messages_of_many_tenants_are_all_counted_and_in_their_order() {
        let placements = Placements::new(4);
        let tenants = 3 * PLACED_BUCKETS_SEARCHED;
        let messages = |device| (0..tenants).map(move |n| message(&format!("tenant-{n}"), device));
        let parts = place(&placements, 4, messages(1).chain(messages(2)).collect()).await;
        let all: usize = parts.iter().map(|(_, part)| part.messages.len()).sum();
        assert_eq!(all, 2 * tenants);
        for (_, part) in parts {
            let counted: u32 = part.counts.iter().map(|(_, count)| count).sum();
            assert_eq!(counted as usize, part.messages.len());
            let devices: Vec<&str> = part.messages.iter().map(|message| message.device.id.as_str()).collect();
            assert!(devices.is_sorted(), "{devices:?}");
            part.counts.iter().for_each(|(id, count)| placements.leave(*id, *count));
        }
    }
}

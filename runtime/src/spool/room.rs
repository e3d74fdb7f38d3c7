//! Room for what comes in: who has it, who waits for it, and who loses its oldest lines for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tracing::warn;

use crate::domain::ids::TenantId;
use crate::domain::limits;
use crate::domain::message::CheckedBatch;
use crate::domain::slot::Slot;
use crate::domain::tenant::settings::SpoolShare;
use crate::domain::tenant::table::Tenants;

use super::committer::{Item, Load};
use super::frame::Draft;
use super::shares::{Room, Shares};
use super::{Shared, WhenFull};

pub struct RoomState {
    pub shares: Shares,
    /// What is parked, which is in `shares` too.
    pub parked: Shares,
    /// Tenants with their shares; `None`: all have the common one.
    pub tenants: Option<Arc<Tenants>>,
    /// Batches of tenants whose share is full, in order.
    pub held: HashMap<TenantId, VecDeque<HeldLines>>,
    /// Tenants of which it was logged that they lose lines.
    pub told: HashMap<TenantId, Instant>,
}

/// A batch that waits for room, or for the disk.
pub struct HeldLines {
    pub batch: CheckedBatch,
    pub draft: Draft,
}

impl HeldLines {
    fn bytes(&self) -> u64 {
        if self.draft.is_empty() { 0 } else { self.draft.header.frame_len() as u64 }
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.batch.slots_mut()
    }
}

impl From<HeldLines> for Item {
    fn from(HeldLines { batch, draft }: HeldLines) -> Self {
        Item { load: Load::Lines(batch), draft }
    }
}

impl RoomState {
    /// What differs for a tenant; for most nothing does.
    fn own_share(&self, tenant: &TenantId) -> SpoolShare {
        self.tenants.as_ref().map_or_else(SpoolShare::default, |tenants| tenants.spool_share(tenant))
    }

    pub fn room(&self, tenant: &TenantId, bytes: u64) -> Room {
        self.shares.room(tenant, bytes, self.own_share(tenant).bytes_max)
    }

    /// Of what may be parked.
    pub fn room_to_park(&self, tenant: &TenantId, bytes: u64) -> Room {
        let own_bytes_max = self.own_share(tenant).bytes_max;
        self.parked.room(tenant, bytes, own_bytes_max.map(|most| most / limits::PARKED_TENANT_SHARE))
    }
}

impl Shared {
    /// Takes room for an item. `None`: it waits for it.
    pub fn take_in(&self, room: &mut RoomState, mut item: HeldLines) -> Option<Item> {
        let (tenant, bytes) = (&item.batch.tenant.id, item.bytes());
        if room.held.contains_key(tenant) {
            self.hold(room, item);
            return None;
        }
        match room.room(tenant, bytes) {
            Room::Free => {}
            full if self.when_full(room, tenant) == WhenFull::DropOldest => {
                if !self.make_room(room, tenant, full) {
                    self.hold(room, item);
                    return None;
                }
            }
            full => {
                warn!(%tenant, share_bytes = room.shares.of(tenant), disk_full = matches!(full, Room::DiskFull(_)),
                      "the tenant's share of the spool is full: its messages wait unacknowledged");
                self.hold(room, item);
                return None;
            }
        }
        room.shares.take(tenant, bytes);
        item.slots().for_each(|slot| slot.unhold());
        Some(item.into())
    }

    pub fn when_full(&self, room: &RoomState, tenant: &TenantId) -> WhenFull {
        room.own_share(tenant).when_full.unwrap_or(self.settings.when_full)
    }

    fn hold(&self, room: &mut RoomState, mut item: HeldLines) {
        item.slots().for_each(|slot| slot.hold());
        room.held.entry(item.batch.tenant.id.clone()).or_default().push_back(item);
    }

    /// Drops the oldest lines of whoever is over its share. False: there is nothing to drop, the
    /// writer has all of it.
    pub fn make_room(&self, room: &mut RoomState, tenant: &TenantId, full: Room) -> bool {
        let (victim, bytes) = match full {
            Room::Free => return true,
            Room::TenantFull(bytes) => (tenant.clone(), bytes),
            // Nobody who is promised that nothing of it is dropped makes room for others.
            Room::DiskFull(bytes) => {
                let drops = |other: &TenantId| self.when_full(room, other) == WhenFull::DropOldest;
                (room.shares.largest(drops).unwrap_or_else(|| tenant.clone()), bytes)
            }
        };
        let gone = self.index.lock().drop_oldest(&victim, bytes);
        if gone.lines > 0 {
            room.shares.give_back(&victim, gone.bytes);
            self.lines_pending.fetch_sub(gone.lines, Ordering::Relaxed);
            self.books.of_known(victim.as_str()).drop_lines(gone.lines);
            let now = Instant::now();
            let told = room.told.insert(victim.clone(), now);
            if told.is_none_or(|told| now.duration_since(told) > Duration::from_secs(60)) {
                warn!(tenant = %victim, lines = gone.lines, reason = "SPOOL_FULL",
                      "the tenant's share of the spool is full: its oldest lines are dropped, as spool.when_full says");
            } else {
                room.told.insert(victim, told.expect("just seen"));
            }
        }
        // What the writer has in hand is bounded by memory, so the share may be over by that.
        !matches!(full, Room::DiskFull(_)) || gone.bytes > 0
    }

    /// A frame is released: its bytes are free, and what waited for them goes on.
    pub fn freed(&self, tenant: &TenantId, bytes: u64) {
        let mut room = self.room.lock();
        room.shares.give_back(tenant, bytes);
        self.go_on(room);
    }

    /// What waits for room and has it now goes on.
    pub fn go_on(&self, mut room: MutexGuard<'_, RoomState>) {
        if room.held.is_empty() {
            return;
        }
        let tenants: Vec<TenantId> = room.held.keys().cloned().collect();
        let mut items = VecDeque::new();
        for tenant in tenants {
            while let Some(item) = room.held.get(&tenant).and_then(VecDeque::front) {
                let bytes = item.bytes();
                let full = room.room(&tenant, bytes);
                let drops = full != Room::Free && self.when_full(&room, &tenant) == WhenFull::DropOldest;
                if full != Room::Free && !(drops && self.make_room(&mut room, &tenant, full)) {
                    break;
                }
                room.shares.take(&tenant, bytes);
                items.extend(room.held.get_mut(&tenant).and_then(VecDeque::pop_front));
            }
            if room.held.get(&tenant).is_some_and(VecDeque::is_empty) {
                room.held.remove(&tenant);
            }
        }
        if items.is_empty() {
            return;
        }
        // Before the room is free for others: the order within a tenant stays.
        self.queue.lock().items.extend(items.into_iter().map(|mut item| {
            item.slots().for_each(|slot| slot.unhold());
            Item::from(item)
        }));
        drop(room);
        self.more.notify_one();
    }

    /// Forgets what waits for room and will come again anyway, because its connection has ended. What
    /// changes the state is not forgotten, for the next messages build on it: it goes on though its
    /// tenant's share is full, so that who connects again and again holds nobody's place.
    pub fn drop_held_of_ended(&self) {
        let mut room = self.room.lock();
        let RoomState { shares, held, tenants, .. } = &mut *room;
        let (mut gone, mut on) = (Vec::new(), Vec::new());
        for (tenant, items) in held.iter_mut() {
            let mut behind_another = false;
            for mut item in std::mem::take(items) {
                let keeps = item.batch.kept.is_some();
                let own = tenants.as_ref().map(|tenants| tenants.spool_share(tenant));
                let own_bytes_max = own.and_then(|own| own.bytes_max);
                let ended = item.slots().all(|slot| slot.is_orphan());
                if ended && (!keeps || item.draft.is_empty()) {
                    gone.push(item);
                } else if ended
                    && !behind_another
                    && !matches!(shares.room(tenant, item.bytes(), own_bytes_max), Room::DiskFull(_))
                {
                    shares.take(tenant, item.bytes());
                    on.push(item);
                } else {
                    // Changes stay in their order.
                    behind_another |= keeps;
                    items.push_back(item);
                }
            }
        }
        held.retain(|_, items| !items.is_empty());
        if !on.is_empty() {
            on.iter_mut().flat_map(HeldLines::slots).for_each(Slot::unhold);
            self.queue.lock().items.extend(on.into_iter().map(Item::from));
            self.more.notify_one();
        }
        drop(room);
        for item in gone {
            // Nothing of an ended connection is acknowledged, whatever it is settled as.
            item.batch.settle();
        }
    }
}

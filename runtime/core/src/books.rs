//! The accounts of each tenant: every message and every line that came in is somewhere.
//!
//! Two equations hold at every moment, because all sides of one change are made under one lock:
//! - received = lines + empty + quarantined + dropped + abandoned + parked + in flight
//! - spooled = written + refused + dropped + damaged + pending

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ids::TenantId;
use crate::limits;
use crate::reason::Reason;

/// The outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its lines are where they were to go.
    Lines,
    /// Its guest made no line of it.
    Empty,
    /// It lies in quarantine, durable, with its reason.
    Quarantined,
    /// It was dropped on purpose.
    Dropped,
    /// Not ended: it is parked, durable, and will be unparked.
    Parked,
}

impl Outcome {
    /// All by which a message ends.
    pub const ALL: [Outcome; 4] = [Outcome::Lines, Outcome::Empty, Outcome::Quarantined, Outcome::Dropped];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Lines => "lines",
            Outcome::Empty => "empty",
            Outcome::Quarantined => "quarantined",
            Outcome::Dropped => "dropped",
            Outcome::Parked => "parked",
        }
    }
}

/// Messages of one tenant since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageBooks {
    pub received: u64,
    pub lines: u64,
    pub empty: u64,
    pub quarantined: u64,
    pub dropped: u64,
    /// Its connection ended before it was settled; it is sent and received again.
    pub abandoned: u64,
    /// Durable in the spool, to be unparked. A message that an earlier run parked is received
    /// again at the start.
    pub parked: u64,
    pub in_flight: u64,
}

impl MessageBooks {
    pub fn balanced(&self) -> bool {
        self.difference() == 0
    }

    /// Messages between both sides of the equation; 0 is right.
    pub fn difference(&self) -> u64 {
        let ended = [self.lines, self.empty, self.quarantined, self.dropped, self.abandoned];
        apart(self.received, ended.iter().chain([&self.parked, &self.in_flight]))
    }
}

/// The difference between a count and the sum of its parts. Counts that were read from elsewhere can be of any size.
fn apart<'a>(whole: u64, parts: impl Iterator<Item = &'a u64>) -> u64 {
    let sum: u128 = parts.map(|&part| u128::from(part)).sum();
    u64::try_from(sum.abs_diff(whole.into())).unwrap_or(u64::MAX)
}

/// Lines of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LineBooks {
    /// Made durable.
    pub spooled: u64,
    /// Accepted by the database.
    pub written: u64,
    /// Refused by the database, one by one, and quarantined.
    pub refused: u64,
    /// To make room, where the operator chose that.
    pub dropped: u64,
    /// Lost to damage of the disk.
    pub damaged: u64,
    pub pending: u64,
}

impl LineBooks {
    pub fn balanced(&self) -> bool {
        self.difference() == 0
    }

    /// Lines between both sides of the equation; 0 is right.
    pub fn difference(&self) -> u64 {
        apart(self.spooled, [self.written, self.refused, self.dropped, self.damaged, self.pending].iter())
    }
}

/// Entries of one tenant in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuarantineBooks {
    pub entries: u64,
    /// Removed at the bounds of quarantine.
    pub expired: u64,
    /// Removed because their replay was settled.
    pub replayed: u64,
    /// Removed by the operator.
    pub removed: u64,
}

/// One tenant's accounts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantBooks {
    pub messages: MessageBooks,
    pub lines: LineBooks,
    pub quarantine: QuarantineBooks,
}

impl TenantBooks {
    pub fn balanced(&self) -> bool {
        self.messages.balanced() && self.lines.balanced()
    }
}

/// The live accounts of one tenant.
#[derive(Debug)]
pub struct Account {
    tenant: TenantId,
    books: Mutex<TenantBooks>,
    /// Dropped messages by reason.
    drops: Mutex<BTreeMap<Reason, u64>>,
    /// Requests to databases with lines of this tenant, by outcome: a handful.
    writes: Mutex<Vec<(&'static str, u64)>>,
    /// A message of this tenant was admitted. Only such a tenant gets a metric label of its own.
    admitted: AtomicBool,
}

impl Account {
    pub fn new(tenant: TenantId) -> Self {
        Self {
            tenant,
            books: Mutex::default(),
            drops: Mutex::default(),
            writes: Mutex::default(),
            admitted: AtomicBool::new(false),
        }
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub fn snapshot(&self) -> TenantBooks {
        *self.books.lock()
    }

    /// Dropped messages by reason since the start of the process.
    pub fn drops(&self) -> BTreeMap<Reason, u64> {
        self.drops.lock().clone()
    }

    /// Adds to the reasons of dropped messages; `settle` counts the messages themselves.
    pub fn record_drops(&self, reason: Reason, messages: u64) {
        *self.drops.lock().entry(reason).or_default() += messages;
    }

    /// Counts a request to a database that carried lines of this tenant.
    pub fn record_write(&self, outcome: &'static str) {
        let mut writes = self.writes.lock();
        match writes.iter_mut().find(|(counted, _)| *counted == outcome) {
            Some((_, count)) => *count += 1,
            None => writes.push((outcome, 1)),
        }
    }

    /// Requests to databases with lines of this tenant since the start of the process, by outcome.
    pub fn writes(&self) -> Vec<(&'static str, u64)> {
        self.writes.lock().clone()
    }

    pub fn was_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Marks that a message of this tenant was admitted.
    pub fn mark_admitted(&self) {
        if !self.was_admitted() {
            self.admitted.store(true, Ordering::Relaxed);
        }
    }

    /// Counts `messages` as received and in flight.
    pub fn receive(&self, messages: u64) {
        let mut books = self.books.lock();
        books.messages.received += messages;
        books.messages.in_flight += messages;
    }

    /// Ends `messages` in flight with an outcome.
    pub fn settle(&self, outcome: Outcome, messages: u64) {
        let books = &mut self.books.lock().messages;
        books.in_flight -= messages;
        match outcome {
            Outcome::Lines => books.lines += messages,
            Outcome::Empty => books.empty += messages,
            Outcome::Quarantined => books.quarantined += messages,
            Outcome::Dropped => books.dropped += messages,
            Outcome::Parked => books.parked += messages,
        }
    }

    /// Ends `messages` in flight whose connection ended before they were settled.
    pub fn abandon(&self, messages: u64) {
        let books = &mut self.books.lock().messages;
        books.in_flight -= messages;
        books.abandoned += messages;
    }

    /// Counts `messages` on disk that an earlier run parked.
    pub fn restore_parked(&self, messages: u64) {
        let books = &mut self.books.lock().messages;
        books.received += messages;
        books.parked += messages;
    }

    /// Moves `messages` from in flight to parked.
    pub fn park(&self, messages: u64) {
        let books = &mut self.books.lock().messages;
        books.in_flight -= messages;
        books.parked += messages;
    }

    /// Moves `messages` from parked to in flight.
    pub fn unpark(&self, messages: u64) {
        let books = &mut self.books.lock().messages;
        books.parked -= messages;
        books.in_flight += messages;
    }

    /// Removes `messages` in flight that belong to another account; they are received there.
    pub fn withdraw(&self, messages: u64) {
        let books = &mut self.books.lock().messages;
        books.received -= messages;
        books.in_flight -= messages;
    }

    /// Counts `lines` as durable.
    pub fn spool_lines(&self, lines: u64) {
        let books = &mut self.books.lock().lines;
        books.spooled += lines;
        books.pending += lines;
    }

    /// Counts `lines` that the database accepted.
    pub fn write_lines(&self, lines: u64) {
        let books = &mut self.books.lock().lines;
        books.pending -= lines;
        books.written += lines;
    }

    /// Counts `lines` that the database refused for good; they are in quarantine.
    pub fn refuse_lines(&self, lines: u64) {
        let books = &mut self.books.lock().lines;
        books.pending -= lines;
        books.refused += lines;
    }

    /// Counts durable `lines` that cannot be read any more.
    pub fn damage_lines(&self, lines: u64) {
        let books = &mut self.books.lock().lines;
        books.pending -= lines;
        books.damaged += lines;
    }

    /// Restores the lines of an earlier run from the disk.
    pub fn restore_lines(&self, lines: LineBooks) {
        self.books.lock().lines = lines;
        // Only an admitted message has lines.
        self.mark_admitted();
    }

    /// Counts `lines` that were dropped on purpose.
    pub fn drop_lines(&self, lines: u64) {
        let books = &mut self.books.lock().lines;
        books.pending -= lines;
        books.dropped += lines;
    }

    pub fn quarantine_entries(&self, added: u64) {
        self.books.lock().quarantine.entries += added;
    }

    /// Removes `entries` at the bounds of quarantine.
    pub fn expire_entries(&self, entries: u64) {
        let books = &mut self.books.lock().quarantine;
        books.entries = books.entries.saturating_sub(entries);
        books.expired += entries;
    }

    /// Removes `entries` whose replay is settled.
    pub fn replay_entries(&self, entries: u64) {
        let books = &mut self.books.lock().quarantine;
        books.entries = books.entries.saturating_sub(entries);
        books.replayed += entries;
    }

    /// `entries` left quarantine because the operator removed them.
    pub fn remove_entries(&self, entries: u64) {
        let books = &mut self.books.lock().quarantine;
        books.entries = books.entries.saturating_sub(entries);
        books.removed += entries;
    }
}

/// The account of messages without a readable tenant.
pub const NO_TENANT: &str = "_none";

/// The account of all tenants beyond the bound on accounts.
pub const OTHER_TENANTS: &str = "_other";

/// The accounts of all tenants. Strangers may name tenants that do not exist; they get accounts of
/// their own only up to a ceiling, the rest share `_other`.
#[derive(Debug)]
pub struct Books {
    accounts: DashMap<TenantId, Arc<Account>, foldhash::fast::RandomState>,
    none: Arc<Account>,
    other: Arc<Account>,
    strangers: AtomicUsize,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            accounts: DashMap::default(),
            none: Arc::new(Account::new(NO_TENANT.into())),
            other: Arc::new(Account::new(OTHER_TENANTS.into())),
            strangers: AtomicUsize::new(0),
        }
    }
}

impl Books {
    /// The account of messages whose topic names no tenant.
    pub fn none(&self) -> &Arc<Account> {
        &self.none
    }

    /// The account of tenants beyond the ceilings.
    pub fn other(&self) -> &Arc<Account> {
        &self.other
    }

    /// The account to count a message of `tenant` in before it is admitted.
    pub fn of_stranger(&self, tenant: &str) -> Arc<Account> {
        if let Some(account) = self.accounts.get(tenant) {
            return account.clone();
        }
        if self.strangers.load(Ordering::Relaxed) >= limits::STRANGER_ACCOUNTS_MAX {
            return self.other.clone();
        }
        let tenant = TenantId::new(tenant);
        self.accounts
            .entry(tenant.clone())
            .or_insert_with(|| {
                self.strangers.fetch_add(1, Ordering::Relaxed);
                Arc::new(Account::new(tenant))
            })
            .clone()
    }

    /// The account of a tenant that the registry knows: always its own.
    pub fn of_known(&self, tenant: &str) -> Arc<Account> {
        if let Some(account) = self.accounts.get(tenant) {
            return account.clone();
        }
        let tenant = TenantId::new(tenant);
        self.accounts.entry(tenant.clone()).or_insert_with(|| Arc::new(Account::new(tenant))).clone()
    }

    /// Every account that was ever used, by tenant.
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        let mut all: Vec<_> = self.accounts.iter().map(|entry| entry.value().clone()).collect();
        for special in [&self.none, &self.other] {
            if special.snapshot() != TenantBooks::default() {
                all.push(special.clone());
            }
        }
        all.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn an_account_balances_after_each_step() {
        let account = Account::new("acme".into());
        let balanced = || assert!(account.snapshot().balanced());
        account.receive(5);
        balanced();
        account.settle(Outcome::Lines, 2);
        balanced();
        account.settle(Outcome::Quarantined, 1);
        account.abandon(1);
        balanced();
        account.spool_lines(10);
        account.write_lines(7);
        account.refuse_lines(1);
        balanced();
        assert_eq!(account.snapshot().messages.in_flight, 1);
        assert_eq!(account.snapshot().lines.pending, 2);
        account.park(1);
        balanced();
        assert_eq!(account.snapshot().messages.parked, 1);
        account.unpark(1);
        balanced();
        account.withdraw(1);
        balanced();
        assert_eq!((account.snapshot().messages.received, account.snapshot().messages.in_flight), (4, 0));
        account.restore_parked(3);
        balanced();
        assert_eq!((account.snapshot().messages.received, account.snapshot().messages.parked), (7, 3));
    }

    #[test]
    fn what_is_missing_or_too_much_is_told_by_its_number() {
        let messages = MessageBooks { received: 10, lines: 4, parked: 3, ..MessageBooks::default() };
        assert_eq!((messages.difference(), messages.balanced()), (3, false));
        let lines = LineBooks { spooled: 1, written: 2, damaged: 4, ..LineBooks::default() };
        assert_eq!((lines.difference(), lines.balanced()), (5, false));
    }

    #[test]
    fn strangers_beyond_the_ceiling_share_one_account() {
        let books = Books::default();
        for n in 0..limits::STRANGER_ACCOUNTS_MAX + 10 {
            books.of_stranger(&format!("t{n}")).receive(1);
        }
        assert_eq!(books.of_stranger("one-more").tenant().as_str(), OTHER_TENANTS);
        assert_eq!(books.of_known("one-more").tenant().as_str(), "one-more");
        assert_eq!(books.of_stranger("one-more").tenant().as_str(), "one-more");
    }
}

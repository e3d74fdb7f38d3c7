//! The store with its thread, on real folders.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::entry;
use crate::entry::Entry;
use crate::filter::Filter;
use crate::handle::Quarantine;
use crate::ring::RemovalReason;
use crate::settings::QuarantineSettings;
use tidegate_core::ack::token::AckToken;
use tidegate_core::ack::tracker::AckTracker;
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::age_clock::AgeClock;
use tidegate_core::books::{Account, Books, Outcome};
use tidegate_core::disk_reserve::DiskReserve;
use tidegate_core::ids::{DatabaseName, GuestTag};
use tidegate_core::message::{Received, RefusedMessage, Via};
use tidegate_core::reason::{Reason, RefusalStage};
use tidegate_core::refused_lines::{RefusedLine, RefusedLines};
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::budgets::BudgetLimits;
use tidegate_core::tenant::database::{DatabaseTemplate, NameRule};
use tidegate_core::tenant::policy::{TenantPolicies, TenantPolicy};
use tidegate_core::tenant::table::Tenants;

struct Rig {
    dir: tempfile::TempDir,
    books: Books,
    connection: Arc<AckTracker>,
    packet_id: std::cell::Cell<u16>,
}

impl Rig {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            books: Books::default(),
            connection: AckTracker::new(Arc::new(ReceiveWindow::new(1_000_000, u64::MAX))),
            packet_id: std::cell::Cell::new(1),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("quarantine")
    }

    fn open(&self, bytes_max: u64, days_max: u32) -> Quarantine {
        let settings = QuarantineSettings {
            retry: Duration::from_millis(10),
            ..QuarantineSettings::new(bytes_max, days_max)
        };
        Quarantine::open(&self.path(), settings, None, &self.books).unwrap()
    }

    fn refused(&self, tenant: &str, reason: Reason, payload: &[u8]) -> RefusedMessage {
        let account = self.books.of_stranger(tenant);
        account.receive(1);
        let id = self.packet_id.get();
        self.packet_id.set(id.wrapping_add(1).max(1));
        let message = Received {
            topic: format!("tenant/{tenant}/device/d1/telemetry"),
            payload: Bytes::copy_from_slice(payload),
            payload_bytes: payload.len(),
            received_ns: 1_700_000_000_123_456_789,
            via: Via::Listener,
            token: self.connection.receive(id, payload.len()),
        };
        let mut refused = RefusedMessage::new(message, reason, "what was wrong".into(), account).with_sender(
            Some(tenant.into()),
            Some("d1".into()),
            true,
        );
        refused.guest = Some("pulse@1.0.0#0123456789ab".into());
        refused.site = (reason.stage() != RefusalStage::Admission).then(|| "lab-1".into());
        refused
    }

    fn account(&self, tenant: &str) -> Arc<Account> {
        self.books.of_stranger(tenant)
    }
}

fn wait(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(10), "it took too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn all(quarantine: &Quarantine, filter: Filter) -> Vec<Entry> {
    quarantine.entries(filter).map(Result::unwrap).collect()
}

#[test]
fn a_refused_message_is_settled_once_it_can_be_read_back() {
    let rig = Rig::new();
    let quarantine = rig.open(1 << 20, 7);
    quarantine.store(rig.refused("acme", Reason::GuestRefused, br#"{"a":1}"#));
    quarantine.store(rig.refused("acme", Reason::BadLine, &[0xff, 0]));
    assert!(quarantine.flush(soon()));
    let books = rig.account("acme").snapshot();
    assert_eq!((books.messages.quarantined, books.messages.in_flight, books.quarantine.entries), (2, 0, 2));
    let entries = all(&quarantine, Filter::default());
    assert_eq!(entries.len(), 2);
    let first = &entries[0];
    assert_eq!((first.reason.as_str(), first.payload.as_deref()), ("GUEST_REFUSED", Some(r#"{"a":1}"#)));
    assert_eq!(first.received_at, "2023-11-14T22:13:20.123456789Z");
    assert_eq!((first.payload_bytes, first.truncated, &first.account), (Some(7), false, &None));
    assert_eq!(entries[1].payload_base64.as_deref(), Some("/wA="));
    assert_eq!(entries[1].payload_bytes_kept().unwrap(), [0xff, 0]);
    let by_id = Filter { id: Some(entries[1].id.clone()), ..Filter::default() };
    assert_eq!(all(&quarantine, by_id), entries[1..]);
    let by_reason = Filter { reason: Some("GUEST_REFUSED".into()), ..Filter::default() };
    assert_eq!(all(&quarantine, by_reason), entries[..1]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&rig.path()), 0o700);
    assert_eq!(mode(&rig.path().join("0000000000000001.jsonl")), 0o600);
}

#[test]
fn what_was_kept_is_counted_again_after_a_restart() {
    let rig = Rig::new();
    let first = rig.open(1 << 20, 7);
    first.store(rig.refused("acme", Reason::GuestTrap, b"x"));
    first.store(rig.refused("beta", Reason::TokenInvalid, b"x"));
    assert!(first.flush(soon()));
    let counts = first.counts();
    drop(first);
    let rig = Rig { books: Books::default(), ..rig };
    let second = rig.open(1 << 20, 7);
    assert_eq!(second.counts(), counts);
    assert_eq!(counts.len(), 2);
    assert_eq!(rig.account("acme").snapshot().quarantine.entries, 1);
    second.store(rig.refused("acme", Reason::GuestTrap, b"y"));
    assert!(second.flush(soon()));
    assert_eq!(all(&second, Filter::default()).len(), 3);
}

#[test]
fn a_torn_tail_is_cut_and_damage_is_skipped() {
    let rig = Rig::new();
    let first = rig.open(1 << 20, 7);
    for _ in 0..3 {
        first.store(rig.refused("acme", Reason::GuestTrap, b"x"));
        assert!(first.flush(soon()));
    }
    drop(first);
    let path = rig.path().join("0000000000000001.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    let whole = bytes.len();
    bytes[whole / 3 + 5] = 0;
    bytes.extend_from_slice(br#"{"id":"torn"#);
    std::fs::write(&path, bytes).unwrap();
    let second = rig.open(1 << 20, 7);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), whole as u64);
    assert_eq!(all(&second, Filter::default()).len(), 2);
    assert_eq!(second.counts()[0].entries, 2);
}

#[test]
fn the_ring_keeps_to_its_bytes_and_counts_what_it_forgets() {
    let rig = Rig::new();
    let quarantine = rig.open(100_000, 7);
    for _ in 0..300 {
        quarantine.store(rig.refused("acme", Reason::GuestRefused, &[b'x'; 1000]));
        assert!(quarantine.flush(soon()));
    }
    assert!(quarantine.bytes() <= 100_000, "{}", quarantine.bytes());
    let entries = all(&quarantine, Filter::default()).len() as u64;
    assert!(entries > 40, "{entries}");
    let books = rig.account("acme").snapshot();
    assert_eq!((books.quarantine.entries, books.quarantine.expired), (entries, 300 - entries));
    assert_eq!(books.messages.quarantined, 300);
}

#[test]
fn the_bytes_of_each_series_and_their_bounds_are_told() {
    let rig = Rig::new();
    let quarantine = rig.open(1_000_000, 7);
    let bytes = || quarantine.bytes_of_series().map(|one| (one.series, one.used, one.max));
    assert_eq!(bytes(), [("proven", 0, 800_000), ("unproven", 0, 100_000), ("unknown", 0, 100_000)]);
    quarantine.store(rig.refused("acme", Reason::GuestRefused, b"{}"));
    assert!(quarantine.flush(soon()));
    let proven = bytes()[0].1;
    assert!(proven > 100 && proven == quarantine.bytes(), "{:?}", bytes());
    quarantine.store(rig.refused("acme", Reason::UnregisteredDevice, b"{}"));
    assert!(quarantine.flush(soon()));
    assert_eq!(bytes()[0].1, proven);
    assert!(bytes()[2].1 > 100 && bytes()[1].1 == 0, "{:?}", bytes());
}

#[test]
fn a_tenant_over_its_budget_loses_its_own_oldest_entries_and_no_other() {
    let rig = Rig::new();
    let policy = TenantPolicy::plain(DatabaseTemplate::new("x_{tenant}", NameRule::Folder));
    // A quarter of the budget is for quarantine.
    let limits = BudgetLimits { tenant_disk_bytes_max: 80_000, ..BudgetLimits::UNLIMITED };
    let tenants = Tenants::new(TenantPolicies::new(policy), Arc::default()).with_budgets(limits);
    let tenants = Arc::new(tenants);
    let open = |rig: &Rig| {
        let mut settings = QuarantineSettings::new(1 << 20, 7);
        settings.tenants = Some(tenants.clone());
        Quarantine::open(&rig.path(), settings, None, &rig.books).unwrap()
    };
    let quarantine = open(&rig);
    quarantine.store(rig.refused("beta", Reason::GuestTrap, b"first"));
    for number in 0..100 {
        quarantine.store(rig.refused("acme", Reason::GuestRefused, format!("{number:0>1000}").as_bytes()));
        assert!(quarantine.flush(soon()));
    }
    let of = |quarantine: &Quarantine, tenant: &str| {
        all(quarantine, Filter { tenant: Some(tenant.into()), ..Filter::default() })
    };
    let entries = of(&quarantine, "acme");
    let newest = entries.last().unwrap().payload.clone().unwrap();
    assert!(newest.ends_with("99") && entries.len() > 10 && entries.len() < 20, "{}", entries.len());
    assert_eq!(of(&quarantine, "beta").len(), 1);
    let books = rig.account("acme").snapshot();
    let (left, expired) = (entries.len() as u64, 100 - entries.len() as u64);
    assert_eq!((books.quarantine.entries, books.quarantine.expired), (left, expired));
    let disk = tenants.budgets_of("acme").disk;
    let used = disk.used_by(BudgetKind::Quarantine);
    assert!(used <= 20_000 && used > left * 1_000, "{used}");
    // The same is charged after a restart, and nothing once all is taken out.
    drop(quarantine);
    assert_eq!(disk.used(), 0);
    let rig = Rig { books: Books::default(), ..rig };
    let quarantine = open(&rig);
    assert_eq!(disk.used(), used);
    let (locations, _) = quarantine.matching(Filter::default(), 1_000).unwrap();
    quarantine.take_out(&locations, RemovalReason::Removed).unwrap();
    assert_eq!(tenants.budgets().gateway().disk.used(), 0);
}

#[test]
fn entries_older_than_the_days_go() {
    let rig = Rig::new();
    let first = rig.open(1 << 20, 7);
    first.store(rig.refused("acme", Reason::GuestTrap, b"x"));
    assert!(first.flush(soon()));
    drop(first);
    make_older(&rig.path().join("0000000000000001.jsonl"), 8, |_| true);
    let rig = Rig { books: Books::default(), ..rig };
    let second = rig.open(1 << 20, 7);
    assert_eq!(all(&second, Filter::default()), []);
    assert_eq!(rig.account("acme").snapshot().quarantine.expired, 1);
}

#[test]
fn of_strangers_the_first_ten_a_second_and_reason_are_kept_and_all_are_counted() {
    let rig = Rig::new();
    let quarantine = rig.open(1 << 20, 7);
    let payload = vec![b'x'; 5000];
    let began = Instant::now();
    quarantine.store_many((0..500).map(|_| rig.refused("acme", Reason::TokenInvalid, &payload)).collect());
    quarantine.store(rig.refused("acme", Reason::BadPayload, "é".repeat(600).as_bytes()));
    assert!(quarantine.flush(soon()));
    let seconds = began.elapsed().as_secs() + 1;
    let entries = all(&quarantine, Filter { reason: Some("TOKEN_INVALID".into()), ..Filter::default() });
    assert!((10..=10 * seconds).contains(&(entries.len() as u64)), "{}", entries.len());
    assert!(entries.iter().all(|entry| entry.truncated && entry.payload.as_ref().unwrap().len() == 1024));
    assert_eq!(entries[0].payload_bytes, Some(5000));
    assert!(entries[0].id.starts_with("a-"));
    let other = all(&quarantine, Filter { reason: Some("BAD_PAYLOAD".into()), ..Filter::default() });
    assert!(other[0].payload.as_ref().unwrap().starts_with("éé"));
    // Those that are kept nowhere are dropped, and counted by their reason.
    let (books, kept) = (rig.account("acme").snapshot().messages, entries.len() as u64 + 1);
    assert_eq!((books.quarantined, books.dropped), (kept, 501 - kept));
    assert_eq!(rig.account("acme").drops(), [(Reason::TokenInvalid, 501 - kept)].into());
    assert_eq!(quarantine.refused_since_start(), [(Reason::BadPayload, 1), (Reason::TokenInvalid, 500)]);
    assert_eq!(rig.connection.window().messages(), 0);
}

#[test]
fn of_known_devices_all_are_kept_whole_and_the_unproven_push_out_no_proven_one() {
    let rig = Rig::new();
    let quarantine = rig.open(400_000, 7);
    let refused = |tenant: &str, is_proven: bool, payload: &[u8]| {
        let mut refused = rig.refused(tenant, Reason::RateLimited, payload).with_known(true);
        refused.is_proven = is_proven;
        refused
    };
    quarantine.store_many((0..80).map(|_| refused("acme", true, &[b'p'; 2000])).collect());
    // Who knows the name of a device fills its tenant's part of a ring of their own.
    quarantine.store(refused("globex", false, &[b'g'; 2000]));
    assert!(quarantine.flush(soon()));
    for _ in 0..20 {
        quarantine.store_many((0..10).map(|_| refused("acme", false, &[b'u'; 2000])).collect());
        assert!(quarantine.flush(soon()));
    }
    let entries = all(&quarantine, Filter::default());
    assert!(entries.iter().all(|entry| !entry.truncated));
    let count = |tenant: &str, letter: &str| {
        let is = |entry: &&Entry| {
            entry.tenant.as_deref() == Some(tenant) && entry.payload.as_ref().unwrap().starts_with(letter)
        };
        entries.iter().filter(is).count()
    };
    assert_eq!((count("acme", "p"), count("globex", "g")), (80, 1));
    assert!(count("acme", "u") < 200, "the ring has no bound");
    let books = rig.account("acme").snapshot();
    assert_eq!((books.messages.quarantined, books.messages.dropped), (280, 0));
    assert!(books.quarantine.expired > 0);
    // Read back, each is in its own ring.
    drop(quarantine);
    let rig = Rig { books: Books::default(), ..rig };
    let again = rig.open(400_000, 7);
    assert_eq!(all(&again, Filter::default()).len(), entries.len());
    assert!(entries.iter().any(|entry| entry.id.starts_with("u-")));
}

#[test]
fn strangers_cannot_push_out_what_was_admitted() {
    let rig = Rig::new();
    let quarantine = rig.open(50_000, 7);
    quarantine.store(rig.refused("acme", Reason::GuestRefused, b"keep me"));
    let reasons = Reason::ALL.iter().filter(|reason| reason.stage() == RefusalStage::Admission);
    for reason in reasons.clone() {
        quarantine.store_many((0..20).map(|_| rig.refused("acme", *reason, &[b'x'; 2000])).collect());
    }
    assert!(quarantine.flush(soon()));
    let strangers = std::fs::read_dir(rig.path()).unwrap().map(Result::unwrap);
    let bytes: u64 = strangers
        .filter(|file| file.file_name().to_str().unwrap().starts_with("a-"))
        .map(|file| file.metadata().unwrap().len())
        .sum();
    // What is appended at once may stand above the share until the next segment.
    assert!(bytes <= 5_000 + 10 * reasons.count() as u64 * 1_500, "{bytes}");
    assert_eq!(
        all(&quarantine, Filter { reason: Some("GUEST_REFUSED".into()), ..Filter::default() }).len(),
        1
    );
}

#[test]
fn nothing_is_settled_while_it_cannot_be_written() {
    let rig = Rig::new();
    let quarantine = rig.open(1 << 20, 7);
    std::fs::remove_dir(rig.path()).unwrap();
    quarantine.store(rig.refused("acme", Reason::GuestTrap, b"x"));
    wait(|| !quarantine.is_usable());
    assert_eq!(rig.account("acme").snapshot().messages.in_flight, 1);
    std::fs::create_dir(rig.path()).unwrap();
    assert!(quarantine.flush(soon()));
    assert!(quarantine.is_usable());
    assert_eq!(rig.account("acme").snapshot().messages.quarantined, 1);
    assert_eq!(all(&quarantine, Filter::default()).len(), 1);
}

#[test]
fn a_refused_line_lies_there_with_its_message_and_the_answer() {
    let rig = Rig::new();
    let quarantine = rig.open(1 << 20, 7);
    let (told, durable) = std::sync::mpsc::channel();
    quarantine.store_lines(RefusedLines {
        database: DatabaseName::new("telemetry_acme"),
        topic: "tenant/acme/device/d1/telemetry".into(),
        received_ns: 5,
        tenant: "acme".into(),
        guest: GuestTag::new("pulse@1.0.0#0123456789ab"),
        account: rig.account("acme"),
        lines: vec![RefusedLine { line: b"m f=1 1".to_vec(), answer: "column type".into() }; 2],
        on_durable: Box::new(move || told.send(()).unwrap()),
    });
    durable.recv_timeout(Duration::from_secs(10)).unwrap();
    let entries = all(&quarantine, Filter { tenant: Some("acme".into()), ..Filter::default() });
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (entries[1].line.as_deref(), entries[1].answer.as_deref()),
        (Some("m f=1 1"), Some("column type"))
    );
    assert_eq!(rig.account("acme").snapshot().quarantine.entries, 2);
}

#[test]
fn a_shown_entry_has_its_credentials_masked_even_in_what_is_no_text() {
    let rig = Rig::new();
    let quarantine = rig.open(1 << 20, 7);
    quarantine.store(rig.refused("acme", Reason::GuestTrap, br#"{"provision_token":"tok-1"}"#));
    quarantine.store(rig.refused("acme", Reason::GuestTrap, b"\xff{\"provision_token\":\"tok-1\"}"));
    assert!(quarantine.flush(soon()));
    for entry in all(&quarantine, Filter::default()) {
        assert!(String::from_utf8_lossy(&entry.payload_bytes_kept().unwrap()).contains("tok-1"));
        let shown = serde_json::to_string(&entry.masked()).unwrap();
        assert!(!shown.contains("tok-1") && shown.contains("***") && !shown.contains("base64"), "{shown}");
    }
}

/// Writes an earlier time of refusal into entries of a file.
fn make_older(path: &Path, days: i64, which: impl Fn(&str) -> bool) {
    let text = std::fs::read_to_string(path).unwrap();
    let earlier = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
    let time = entry::rfc3339(earlier.as_nanosecond() as i64);
    let aged = text.lines().map(|line| {
        let begin = line.find("\"time\":\"").filter(|_| which(line)).map(|at| at + 8);
        match begin {
            // As earlier versions wrote them, without a time of the age clock.
            Some(at) => {
                let behind = line[at + time.len()..].split_once("\"received_at\"").unwrap().1;
                format!("{}{time}\",\"received_at\"{behind}\n", &line[..at])
            }
            None => format!("{line}\n"),
        }
    });
    std::fs::write(path, aged.collect::<String>()).unwrap();
}

fn of(tenant: &str) -> Filter {
    Filter { tenant: Some(tenant.into()), ..Filter::default() }
}

fn ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.id.clone()).collect()
}

fn remove(quarantine: &Quarantine, filter: Filter) -> usize {
    let (places, _) = quarantine.matching(filter, usize::MAX).unwrap();
    quarantine.take_out(&places, RemovalReason::Removed).unwrap().len()
}

#[test]
fn a_tenant_that_floods_pushes_out_only_its_own() {
    let rig = Rig::new();
    let quarantine = rig.open(200_000, 7);
    for n in 0..20 {
        quarantine.store(rig.refused("quiet", Reason::GuestRefused, format!("{n}").as_bytes()));
    }
    assert!(quarantine.flush(soon()));
    let before = all(&quarantine, of("quiet"));
    // Ten times what fits.
    for _ in 0..1_400 {
        quarantine.store(rig.refused("loud", Reason::GuestTrap, &[b'x'; 1000]));
        assert!(quarantine.flush(soon()));
    }
    assert!(quarantine.bytes() <= 200_000, "{}", quarantine.bytes());
    assert_eq!(all(&quarantine, of("quiet")), before, "names, times and payloads stay");
    let quiet = rig.account("quiet").snapshot().quarantine;
    assert_eq!((quiet.entries, quiet.expired), (20, 0));
    let loud = rig.account("loud").snapshot().quarantine;
    assert_eq!(loud.entries + loud.expired, 1_400);
    assert_eq!(all(&quarantine, of("loud")).len() as u64, loud.entries);
    assert!(loud.entries > 50, "{loud:?}");
    // A carried entry is found by its name, which says where it was first.
    let by_id = Filter { id: Some(before[7].id.clone()), ..Filter::default() };
    assert_eq!(all(&quarantine, by_id), before[7..8]);
    assert!(!rig.path().join("0000000000000001.jsonl").exists());
    let mut names = ids(&all(&quarantine, Filter::default()));
    let entries = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), entries, "names are unique");
    let counts = quarantine.counts();
    drop(quarantine);
    let rig = Rig { books: Books::default(), ..rig };
    let second = rig.open(200_000, 7);
    assert_eq!(second.counts(), counts);
    assert_eq!(all(&second, of("quiet")), before);
}

#[test]
fn a_crash_between_carrying_and_removal_shows_nothing_twice() {
    let rig = Rig::new();
    let first = rig.open(200_000, 7);
    first.store(rig.refused("quiet", Reason::GuestRefused, b"keep me"));
    assert!(first.flush(soon()));
    let oldest = rig.path().join("0000000000000001.jsonl");
    let bytes = std::fs::read(&oldest).unwrap();
    let mut stored = 0;
    while oldest.exists() {
        first.store(rig.refused("loud", Reason::GuestTrap, &[b'x'; 1000]));
        assert!(first.flush(soon()));
        stored += 1;
        assert!(stored < 1_000);
    }
    let carried = all(&first, of("quiet"));
    assert_eq!(carried.len(), 1);
    drop(first);
    std::fs::write(&oldest, bytes).unwrap();
    // A reader that meets it in both places shows it once; after the start it stands in one.
    assert_eq!(Quarantine::read(&rig.path(), of("quiet")).map(Result::unwrap).collect::<Vec<_>>(), carried);
    let rig = Rig { books: Books::default(), ..rig };
    let second = rig.open(200_000, 7);
    assert_eq!(rig.account("quiet").snapshot().quarantine.entries, 1);
    assert_eq!(all(&second, of("quiet")), carried);
    assert_eq!(remove(&second, of("quiet")), 1);
    assert_eq!(all(&second, of("quiet")), []);
}

#[test]
fn what_is_removed_stays_removed() {
    let rig = Rig::new();
    let first = rig.open(1 << 20, 7);
    for n in 0..5 {
        first.store(rig.refused("acme", Reason::GuestRefused, format!("payload {n}").as_bytes()));
    }
    first.store(rig.refused("beta", Reason::TokenInvalid, b"x"));
    assert!(first.flush(soon()));
    let path = rig.path().join("0000000000000001.jsonl");
    let size = std::fs::metadata(&path).unwrap().len();
    let entries = all(&first, of("acme"));
    let one = |entry: &Entry| Filter { id: Some(entry.id.clone()), ..Filter::default() };
    assert_eq!(remove(&first, one(&entries[1])), 1);
    assert_eq!(remove(&first, one(&entries[1])), 0, "it is gone");
    assert_eq!(remove(&first, of("beta")), 1);
    let books = rig.account("acme").snapshot().quarantine;
    assert_eq!((books.entries, books.removed, books.expired, books.replayed), (4, 1, 0, 0));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "in place");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("payload 1"));
    let left: Vec<Entry> = entries.into_iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, e)| e).collect();
    assert_eq!(all(&first, of("acme")), left);
    first.store(rig.refused("acme", Reason::GuestRefused, b"later"));
    assert!(first.flush(soon()));
    assert_eq!(all(&first, of("acme")).len(), 5);
    drop(first);
    let rig = Rig { books: Books::default(), ..rig };
    let second = rig.open(1 << 20, 7);
    assert_eq!(all(&second, of("acme")).len(), 5);
    assert_eq!(all(&second, of("beta")), []);
    assert_eq!(rig.account("acme").snapshot().quarantine.entries, 5);
    assert_eq!(remove(&second, Filter::default()), 5);
    drop(second);
    assert_eq!(std::fs::read_dir(rig.path()).unwrap().count(), 0, "a segment without entries goes");
}

#[test]
fn what_is_too_old_goes_though_newer_entries_stand_beside_it() {
    let rig = Rig::new();
    let first = rig.open(1 << 20, 7);
    for n in 0..4 {
        first.store(rig.refused("acme", Reason::GuestRefused, format!("payload {n}").as_bytes()));
    }
    assert!(first.flush(soon()));
    drop(first);
    make_older(&rig.path().join("0000000000000001.jsonl"), 8, |line| line.contains("payload 2"));
    let rig = Rig { books: Books::default(), ..rig };
    let second = rig.open(1 << 20, 7);
    assert_eq!(all(&second, Filter::default()).len(), 3);
    let books = rig.account("acme").snapshot().quarantine;
    assert_eq!((books.entries, books.expired), (3, 1));
}

#[test]
fn entries_are_chosen_by_every_part_of_a_filter() {
    let rig = Rig::new();
    let template =
        tidegate_core::topic::TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap();
    let topics = Some(Arc::new(template.into()));
    let settings = QuarantineSettings { topics, ..QuarantineSettings::new(1 << 20, 7) };
    let quarantine = Quarantine::open(&rig.path(), settings, None, &rig.books).unwrap();
    quarantine.store(rig.refused("acme", Reason::GuestRefused, b"1"));
    let mut other = rig.refused("acme", Reason::NoGuest, b"2");
    (other.topic, other.guest) = ("tenant/acme/device/d2/alarm".into(), None);
    other.device = Some("d2".into());
    quarantine.store(other);
    assert!(quarantine.flush(soon()));
    let count = |key: &str, value: &str| {
        let mut filter = Filter::default();
        filter.set(key, value).unwrap();
        all(&quarantine, filter).len()
    };
    for (key, value, entries) in [
        ("tenant", "acme", 2),
        ("tenant", "beta", 0),
        ("device", "d2", 1),
        ("type", "alarm", 1),
        ("type", "telemetry", 1),
        ("reason", "NO_GUEST", 1),
        ("guest", "pulse", 1),
        ("guest", "0123456", 1),
        ("since", "2020-01-01T00:00:00Z", 2),
        ("until", "2020-01-01T00:00:00Z", 0),
        ("since", "2200-01-01T00:00:00Z", 0),
        ("id", "0000000000000001-0", 1),
        ("id", "0000000000000001-1", 0),
        ("id", "no-id", 0),
    ] {
        assert_eq!(count(key, value), entries, "{key} = {value}");
    }
    let (places, more) = quarantine.matching(Filter::default(), 1).unwrap();
    assert_eq!((places.len(), more), (1, 1));
}

#[test]
fn a_replayed_message_that_is_refused_again_says_so_and_no_sampling_loses_it() {
    let rig = Rig::new();
    let quarantine = rig.open(1 << 20, 7);
    let replay = |n: u32| {
        let mut refused = rig.refused("acme", Reason::TokenInvalid, b"x");
        let replay = Arc::new(tidegate_core::ack::origin::ReplayedEntry::new(format!("a-{n:016}-0"), n));
        refused.token = AckToken::replayed(rig.connection.window(), replay.clone(), 1);
        quarantine.store(refused);
        replay
    };
    let replays: Vec<_> = (1..=50).map(replay).collect();
    assert!(quarantine.flush(soon()));
    let entries = all(&quarantine, Filter::default());
    assert_eq!(entries.len(), 50);
    assert_eq!((entries[6].replays, entries[6].replay_of.as_deref()), (7, Some("a-0000000000000007-0")));
    assert!(replays.iter().all(|replay| replay.outcome() == Some(Outcome::Quarantined)));
}

#[test]
fn what_an_earlier_version_kept_can_still_be_read() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path()).unwrap();
    let line = r#"{"id":"0000000000000001-0","time":"2026-11-23T08:59:58.000000000Z","received_at":"2026-11-23T08:59:57.000000000Z","reason":"NO_GUEST","detail":"none","topic":"tenant/acme/device/d1/notes","tenant":"acme","device":"d1","payload":"x","payload_bytes":1}"#;
    std::fs::write(rig.path().join("0000000000000001.jsonl"), format!("{line}\n")).unwrap();
    let quarantine = rig.open(1 << 20, 1_000_000);
    let entries = all(&quarantine, of("acme"));
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].site, entries[0].via(), entries[0].replays), (&None, Via::Listener, 0));
    assert_eq!(serde_json::to_string(&entries[0]).unwrap(), line, "and is written as it was");
}

#[test]
fn a_stranger_who_names_a_tenant_without_a_database_stays_among_strangers() {
    let rig = Rig::new();
    let quarantine = rig.open(1 << 20, 7);
    let stranger = |payload| {
        let mut refused = rig.refused("a b", Reason::BadDatabaseName, payload);
        refused.site = None;
        refused
    };
    quarantine.store_many((0..500).map(|_| stranger(&[b'x'; 2000])).collect());
    assert!(quarantine.flush(soon()));
    let entries = all(&quarantine, Filter::default());
    assert!(entries.len() < 100, "{}", entries.len());
    assert!(entries.iter().all(|entry| entry.truncated && entry.id.starts_with("a-")));
}

#[test]
fn entries_expire_by_their_age_and_not_by_a_step_of_the_wall_clock() {
    let rig = Rig::new();
    let age_clock = Arc::new(AgeClock::manual(Duration::from_secs(1_800_000_000)));
    let open = |books: &Books| {
        let settings =
            QuarantineSettings { age_clock: age_clock.clone(), ..QuarantineSettings::new(1 << 20, 7) };
        Quarantine::open(&rig.path(), settings, None, books).unwrap()
    };
    let first = open(&rig.books);
    first.store(rig.refused("acme", Reason::GuestRefused, b"x"));
    assert!(first.flush(soon()));
    drop(first);
    // As a machine without a clock writes it: in 1970. The wall clock of this test is years ahead of that.
    let path = rig.path().join("0000000000000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let time = text.split_once("\"time\":\"").unwrap().1.split_once('"').unwrap().0;
    std::fs::write(&path, text.replace(time, "1970-01-01T00:00:07Z")).unwrap();
    age_clock.advance(Duration::from_secs(6 * 86_400));
    assert_eq!(all(&open(&Books::default()), Filter::default()).len(), 1, "six days old");
    age_clock.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(all(&open(&Books::default()), Filter::default()).len(), 0, "eight days old");
}

#[test]
fn an_entry_of_an_earlier_version_with_a_clock_that_was_not_set_does_not_expire_at_once() {
    let rig = Rig::new();
    let first = rig.open(1 << 20, 7);
    first.store(rig.refused("acme", Reason::GuestRefused, b"x"));
    assert!(first.flush(soon()));
    drop(first);
    make_older(&rig.path().join("0000000000000001.jsonl"), 365 * 40, |_| true);
    assert_eq!(all(&rig.open(1 << 20, 7), Filter::default()).len(), 1);
}

#[test]
fn while_the_disk_is_low_new_entries_take_the_room_of_the_oldest() {
    let rig = Rig::new();
    let payload = [b'x'; 100_000];
    let store = |quarantine: &Quarantine, count: usize| {
        (0..count).for_each(|_| quarantine.store(rig.refused("acme", Reason::GuestRefused, &payload)));
        assert!(quarantine.flush(soon()));
    };
    let first = rig.open(32 << 20, 7);
    store(&first, 20);
    let bytes = first.bytes();
    drop(first);
    let settings = QuarantineSettings {
        disk_reserve: Arc::new(DiskReserve::new(rig.dir.path(), u64::MAX)),
        ..QuarantineSettings::new(32 << 20, 7)
    };
    let low = Quarantine::open(&rig.path(), settings, None, &rig.books).unwrap();
    store(&low, 60);
    assert!(low.bytes() < bytes + (4 << 20), "{} bytes where there were {bytes}", low.bytes());
    assert!(!all(&low, Filter::default()).is_empty());
}

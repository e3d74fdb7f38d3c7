//! Memory of the spool: charged as it is, and bounded.

use std::sync::Arc;

use crate::commit_queue::charge_lines;
use crate::compaction;
use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{FrameId, FrameLocation};
use crate::index::{HandoffState, Index};
use crate::limits::SPOOL_COPY_AGE_S;
use crate::settings::MemoryLimits;
use tidegate_core::ack::tracker::AckTracker;
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::books::Account;
use tidegate_core::durable::MessageSet;
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::message::{CheckedBatch, CheckedMessage};
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::settings::TenantSettings;

const FRAME_BYTES: u32 = 64 << 10;

const LIMITS: MemoryLimits = MemoryLimits { bytes_max: 8 << 20, database_bytes_min: 256 << 10 };

/// Takes a frame of lines at `at_ns`.
fn insert(index: &mut Index, stream: u32, at_ns: i64) -> HandoffState {
    let header = FrameHeader {
        kind: FrameKind::Lines,
        flags: 0,
        messages: 1,
        body_len: FRAME_BYTES,
        body_crc: 0,
        seq: index.next_seq(stream),
        spooled: 1,
        first_ns: at_ns,
        last_ns: at_ns,
        kept_s: 1,
        lines: 1,
        tenant: String::new(),
        database: String::new(),
    };
    index.insert(stream, &header, FrameLocation { segment: 1, offset: 0, len: FRAME_BYTES }, &LIMITS)
}

fn streams(index: &mut Index, count: usize) -> Vec<u32> {
    let stream = |number| {
        let name = format!("t{number}");
        index.stream(&TenantId::new(&name), &DatabaseName::new(&name))
    };
    (0..count).map(stream).collect()
}

#[test]
fn frames_that_overtake_a_backlog_take_no_more_memory_than_all_may() {
    let mut index = Index::default();
    let streams = streams(&mut index, 20);
    let mut overtaking = 0;
    for &stream in &streams {
        // The database fails: what it had is a backlog.
        let seq = index.next_seq(stream);
        insert(&mut index, stream, 0);
        index.return_messages(FrameId { stream, seq }, MessageSet::MAX);
    }
    for at_ns in 1..1_000 {
        for &stream in &streams {
            let handoff_state = insert(&mut index, stream, at_ns);
            overtaking += u64::from(matches!(handoff_state, HandoffState::Hot { overtakes: true, .. }));
        }
    }
    assert!(overtaking > 0);
    let most = LIMITS.bytes_max + 20 * (LIMITS.database_bytes_min + u64::from(FRAME_BYTES));
    assert!(index.memory_bytes() <= most, "{} bytes in memory", index.memory_bytes());
}

#[test]
fn what_each_database_may_hold_in_any_case_is_bounded_for_a_thousand() {
    let mut index = Index::default();
    for stream in streams(&mut index, 1_000) {
        (0..8).for_each(|at_ns| _ = insert(&mut index, stream, at_ns));
    }
    // Eight megabytes, and for the later ones a frame each.
    let most = LIMITS.bytes_max + 1_000 * u64::from(FRAME_BYTES);
    assert!(index.memory_bytes() <= most, "{} bytes in memory", index.memory_bytes());
}

#[test]
fn a_segment_of_the_last_seconds_is_copied_out_of_only_where_disk_is_short() {
    let mut index = Index::default();
    let stream = streams(&mut index, 1)[0];
    // One frame of it is alive, that came in the first second.
    insert(&mut index, stream, 0);
    index.record_segment(1, 16 << 20);
    let roomy = 1 << 30;
    let to_copy = |now_s, bytes_max| compaction::to_copy(&index, Some(2), 16 << 20, bytes_max, now_s);
    for now_s in [1, 1 + SPOOL_COPY_AGE_S] {
        assert_eq!(to_copy(now_s, roomy), None, "in second {now_s}");
        assert_eq!(to_copy(now_s, 17 << 20), Some(1), "in second {now_s}, on a disk that is almost full");
    }
    assert_eq!(to_copy(2 + SPOOL_COPY_AGE_S, roomy), Some(1));
    assert_eq!(to_copy(0, roomy), Some(1), "the clock was ahead");
}

#[test]
fn a_small_payload_that_became_many_lines_is_charged_for_the_lines() {
    let window = Arc::new(ReceiveWindow::new(1_000, 1 << 20));
    let connection = AckTracker::new(window.clone());
    let batch = |bytes: usize| {
        let account = Arc::new(Account::new("acme".into()));
        account.receive(2);
        let tenant = Tenant::new("acme".into(), account, TenantSettings::plain(Ok("db".into())));
        let message = |packet_id: u16, part: usize| CheckedMessage {
            topic: "t".into(),
            received_ns: 1,
            lines_end: (bytes / 2 * part) as u32,
            line_count: 1,
            affinity: 1,
            token: connection.receive(packet_id, 100),
        };
        let messages = vec![message(1, 1), message(2, 2)];
        CheckedBatch::new("db".into(), Arc::new(tenant), "g@1#0".into(), vec![b'x'; bytes], messages)
    };
    let mut small = batch(1_000);
    charge_lines(&mut small);
    assert_eq!(window.bytes(), 200, "as the payloads are");
    small.settle();
    let mut large = batch(700_000);
    charge_lines(&mut large);
    assert_eq!(window.bytes(), 700_200);
    large.tokens_mut().for_each(|token| token.defer(false));
    assert_eq!(window.bytes(), 0, "what waits for room is bounded apart");
    large.tokens_mut().for_each(|token| token.resume());
    assert_eq!(window.bytes(), 700_200);
    large.settle();
    assert_eq!((window.bytes(), window.messages()), (0, 0));
}

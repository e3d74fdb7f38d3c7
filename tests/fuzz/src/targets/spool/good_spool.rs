//! A spool that was written and closed in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::ack::token::AckToken;
use tidegate_core::books::Books;
use tidegate_core::decoder_state::{StateDelta, StateWrite};
use tidegate_core::durable::FrameLines;
use tidegate_core::message::{CheckedBatch, CheckedMessage, Received, Via};
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::settings::TenantSettings;
use tidegate_spool::Spool;

use super::{Fetched, settings};
use crate::folder::temporary;

const FRAMES: u32 = 48;

const PARKED: u32 = 4;

/// A frame of lines: tenant, database, topics and lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrittenFrame {
    tenant: String,
    database: String,
    topics: Vec<String>,
    lines: Vec<u8>,
}

impl WrittenFrame {
    pub fn of(frame: &FrameLines) -> Self {
        Self {
            tenant: frame.account.tenant().to_string(),
            database: frame.database.to_string(),
            topics: frame.messages.iter().map(|message| message.topic.clone()).collect(),
            lines: frame.lines.clone(),
        }
    }
}

/// The files of a spool, and their contents.
pub struct GoodSpool {
    pub files: Vec<(String, Vec<u8>)>,
    /// Each with the file that it lies in.
    pub frames: BTreeMap<WrittenFrame, String>,
    pub parked: BTreeSet<(String, Vec<u8>)>,
}

impl GoodSpool {
    pub fn write() -> Self {
        let folder = temporary();
        let books = Arc::new(Books::default());
        let opened = Spool::open(folder.path(), settings(), None, &books).expect("a new spool opens");
        let spool = opened.start(Arc::new(Fetched)).expect("threads start");
        let flush = || assert!(spool.flush(Instant::now() + Duration::from_secs(60)), "the disk is slow");
        let mut written = Vec::new();
        for number in 0..FRAMES {
            let batch = batch(&books, number);
            written.push(WrittenFrame {
                tenant: batch.tenant.id.to_string(),
                database: batch.database.to_string(),
                topics: batch.messages.iter().map(|message| message.topic.clone()).collect(),
                lines: batch.lines.clone(),
            });
            spool.append(vec![batch], false);
            flush();
        }
        let mut parked = BTreeSet::new();
        for number in 0..PARKED {
            let account = books.of_known("acme");
            account.receive(1);
            let (topic, payload) = (format!("parked/{number}"), format!("payload {number}"));
            let message = Received {
                topic: topic.clone(),
                payload: payload.clone().into(),
                received_ns: i64::from(number),
                via: Via::Broker,
                payload_bytes: payload.len(),
                token: AckToken::trial(),
            };
            spool.park(&"acme".into(), &account, message).expect("there is room");
            parked.insert((topic, payload.into_bytes()));
        }
        flush();
        spool.close();

        let entries = fs::read_dir(folder.path()).expect("the folder is there");
        let mut files: Vec<(String, Vec<u8>)> = entries
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read(entry.path()).expect("the file is there"))
            })
            .collect();
        files.sort();
        assert!(files.len() > 3, "several segments");
        let place = |frame: &WrittenFrame| {
            let holds =
                |content: &[u8]| content.windows(frame.lines.len()).any(|window| window == frame.lines);
            files.iter().find(|(_, content)| holds(content)).expect("each frame lies somewhere").0.clone()
        };
        let frames = written.into_iter().map(|frame| (frame.clone(), place(&frame))).collect();
        Self { files, frames, parked }
    }
}

/// A batch of some messages, which nobody waits for.
fn batch(books: &Books, number: u32) -> CheckedBatch {
    let tenant = if number.is_multiple_of(3) { "globex" } else { "acme" };
    let database = if number.is_multiple_of(2) { "db" } else { "other" };
    let account = books.of_known(tenant);
    let (mut lines, mut messages) = (Vec::new(), Vec::new());
    for message in 0..=number % 4 {
        let line = format!("m,device_id=d{message} text=\"{}\",f={number} {number}\n", "x".repeat(150));
        lines.extend_from_slice(line.as_bytes());
        account.receive(1);
        messages.push(CheckedMessage {
            topic: format!("tenant/{tenant}/device/d{message}/t"),
            received_ns: i64::from(number),
            lines_end: lines.len() as u32,
            line_count: 1,
            affinity: message,
            token: AckToken::trial(),
        });
    }
    let tenant = Tenant::new(tenant.into(), account, TenantSettings::plain(Ok(database.into())));
    let mut batch = CheckedBatch::new(database.into(), Arc::new(tenant), "g@1#0".into(), lines, messages);
    if number.is_multiple_of(5) {
        let mut delta = StateDelta::new("t".into());
        let value = Some(number.to_le_bytes().to_vec().into());
        delta.writes.push(StateWrite { partition: "d0".into(), key: "count".into(), value });
        batch.state_delta = Some(Box::new(delta));
    }
    batch
}

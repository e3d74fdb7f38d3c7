//! The folder of a spool, damaged: it opens, in bounded memory; what is recovered was written; and files that
//! were not touched give back all that they hold.
//!
//! An input is one of three things: files of any bytes, a segment whose checksums are put right afterwards,
//! or a list of blows to a good spool.

mod good_spool;
mod checksums;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tidegate_core::age_clock::AgeClock;
use tidegate_core::books::Books;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::{Durable, Handoff};
use tidegate_core::ids::DatabaseName;
use tidegate_spool::{Spool, SpoolSettings, WhenFull};

use crate::choices::Choices;
use crate::folder::temporary;
use crate::memory::peak_bytes_of;
use good_spool::{GoodSpool, WrittenFrame};

/// Bytes of memory for each byte of the files, and beside that: a frame may announce 65,535 messages.
const BYTES_A_BYTE: usize = 256;

const OVERHEAD_BYTES: usize = 8 << 20;

/// Blows to one spool: more leave nothing of it.
const BLOWS_MAX: usize = 12;

const SALT: u32 = 7;

static GOOD: LazyLock<GoodSpool> = LazyLock::new(GoodSpool::write);

fn settings() -> SpoolSettings {
    SpoolSettings {
        bytes_max: 256 << 10,
        tenant_bytes_max: 256 << 10,
        when_full: WhenFull::Block,
        memory_bytes_max: 16 << 20,
        sync: false,
        device_seed: SeedTag::default(),
        age_clock: Arc::default(),
    }
}

/// Wants lines only when they are fetched.
struct Fetched;

impl Handoff for Fetched {
    fn deliver(&self, durable: Durable) {
        let _ = durable.give_back(0..durable.messages.len());
    }

    fn waits(&self, _: &DatabaseName) {}
}

/// The lines that a spool gives back.
#[derive(Debug, Default, PartialEq, Eq)]
struct Recovered {
    frames: BTreeSet<WrittenFrame>,
    parked: BTreeSet<(String, Vec<u8>)>,
}

/// Opens the spool in a folder and reads all of it.
fn recover(folder: &Path, bytes: usize, with_threads: bool) -> Recovered {
    let most = OVERHEAD_BYTES + BYTES_A_BYTE * bytes;
    let (looked_at, peak) = peak_bytes_of(|| Spool::open_read_only(folder, &AgeClock::default()));
    assert!(peak <= most, "{peak} bytes of memory for {bytes}");
    let (status, _) = looked_at.expect("files that can be read are read");
    Spool::read_state(folder).expect("files that can be read are read");

    let books = Arc::new(Books::default());
    let (opened, peak) = peak_bytes_of(|| Spool::open(folder, settings(), None, &books));
    assert!(peak <= most, "{peak} bytes of memory for {bytes}");
    let opened = opened.expect("files that can be read are read");
    let lines_of = opened.lines();
    let mut recovered = Recovered::default();
    let databases: HashSet<&str> = status.backlogs.iter().map(|backlog| &*backlog.database).collect();
    for database in databases {
        loop {
            let (durables, more) = lines_of.fetch(&DatabaseName::new(database), 1 << 20);
            assert!(!more || !durables.is_empty(), "a disk that answers gives all");
            recovered.frames.extend(durables.iter().map(|durable| WrittenFrame::of(durable)));
            if !more {
                break;
            }
        }
    }
    if with_threads {
        let spool = opened.start(Arc::new(Fetched)).expect("threads start");
        spool.parked_topics(|_| ());
        // Those that are held are not given again.
        let mut held = Vec::new();
        loop {
            let unparked = spool.unpark(1 << 20);
            if unparked.is_empty() {
                break;
            }
            held.extend(unparked);
        }
        let parts = held.iter().map(|held| (held.message.topic.clone(), held.message.payload.to_vec()));
        recovered.parked.extend(parts);
        spool.close();
    }
    recovered
}

/// Files of any bytes.
fn any_files(choices: &mut Choices<'_>, folder: &Path) -> usize {
    let names = ["0000000000000001.seg", "0000000000000002.seg", "newest", "state"];
    let mut bytes = 0;
    for name in names {
        let length = usize::from(choices.u16()) % 4096;
        let content = choices.bytes(length);
        bytes += content.len();
        fs::write(folder.join(name), content).expect("a file can be written");
    }
    bytes
}

/// One segment whose checksums hold, and a checkpoint.
fn with_checksums(choices: &mut Choices<'_>, folder: &Path) -> usize {
    let state_bytes = usize::from(choices.u8());
    let mut state = choices.bytes(state_bytes).to_vec();
    if !state.is_empty() {
        state.extend_from_slice(&crc32c::crc32c(&state).to_le_bytes());
        fs::write(folder.join("state"), &state).expect("a file can be written");
    }
    let mut segment = checksums::segment_header(1, SALT);
    segment.extend_from_slice(choices.rest);
    checksums::put_right(&mut segment, SALT);
    fs::write(folder.join("0000000000000001.seg"), &segment).expect("a file can be written");
    segment.len() + state.len()
}

/// A good spool under blows. Gives the names of the files that they touched.
fn under_blows(choices: &mut Choices<'_>, folder: &Path) -> (usize, HashSet<String>) {
    let mut files = GOOD.files.clone();
    let mut touched = HashSet::new();
    for _ in 0..BLOWS_MAX {
        if choices.rest.is_empty() {
            break;
        }
        let (kind, file) = (choices.u8() % 8, usize::from(choices.u8()) % files.len());
        let (at, length) = (usize::from(choices.u16()), usize::from(choices.u8()));
        let other = (file + 1) % files.len();
        let (name, content) = &mut files[file];
        touched.insert(name.clone());
        let at = at % (content.len() + 1);
        let end = (at + length).min(content.len());
        match kind {
            0 if at < content.len() => content[at] ^= (length as u8).max(1),
            1 => content[at..end].fill(0),
            2 => content.truncate(at),
            3 => drop(content.drain(at..end)),
            4 => drop(content.splice(at..at, choices.bytes(length).iter().copied())),
            5 => {
                let part = content[at..end].to_vec();
                let to = usize::from(choices.u16()) % (content.len() + 1);
                drop(content.splice(to..to, part));
            }
            6 => content.clear(),
            _ => {
                touched.insert(files[other].0.clone());
                let content = std::mem::take(&mut files[file].1);
                files[file].1 = std::mem::replace(&mut files[other].1, content);
            }
        }
    }
    for (name, content) in &files {
        // An empty one stands for one that is gone.
        if !(content.is_empty() && touched.contains(name)) {
            fs::write(folder.join(name), content).expect("a file can be written");
        }
    }
    (files.iter().map(|(_, content)| content.len()).sum(), touched)
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let choice = choices.u8();
    let with_threads = choice & 8 != 0;
    let folder = temporary();
    let path = folder.path();
    match choice % 3 {
        0 => {
            let bytes = any_files(&mut choices, path);
            recover(path, bytes, with_threads);
        }
        1 => {
            let bytes = with_checksums(&mut choices, path);
            recover(path, bytes, with_threads);
            recover(path, bytes, with_threads);
        }
        _ => {
            let (bytes, touched) = under_blows(&mut choices, path);
            let recovered = recover(path, bytes, with_threads);
            for frame in &recovered.frames {
                assert!(GOOD.frames.contains_key(frame), "never written: {frame:?}");
            }
            for parked in &recovered.parked {
                assert!(GOOD.parked.contains(parked), "never parked: {parked:?}");
            }
            for (frame, file) in &GOOD.frames {
                let is_there = recovered.frames.contains(frame) || touched.contains(file);
                assert!(is_there, "lost without a blow to {file}: {frame:?}");
            }
            let again = recover(path, bytes, with_threads);
            assert_eq!(again.frames, recovered.frames, "another start gives something else");
        }
    }
}

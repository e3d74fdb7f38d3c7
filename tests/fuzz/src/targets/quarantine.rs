//! Files of quarantine with any bytes in them: an entry is given or skipped, shown without credentials, and a
//! store opens on them in bounded memory.

use std::fs;

use tidegate_core::books::Books;
use tidegate_quarantine::{Filter, Quarantine, QuarantineSettings, redact_payload};

use crate::choices::Choices;
use crate::folder::temporary;
use crate::memory::peak_bytes_of;

/// Bytes of memory for each byte of the files, and beside that: buffers of the reader.
const BYTES_A_BYTE: usize = 64;

const OVERHEAD_BYTES: usize = 512 * 1024;

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (opens, strangers_at) = (choices.u8() & 1 == 1, usize::from(choices.u16()));
    let strangers_at = strangers_at.min(choices.rest.len());
    let (own, strangers) = choices.rest.split_at(strangers_at);
    let folder = temporary();
    let place = |name: &str| folder.path().join(name);
    fs::write(place("0000000000000001.jsonl"), own).expect("the file can be written");
    fs::write(place("a-0000000000000001.jsonl"), strangers).expect("the file can be written");

    let read = || Quarantine::read(folder.path(), Filter::default()).collect::<Result<Vec<_>, _>>();
    let (entries, peak) = peak_bytes_of(read);
    let entries = entries.expect("files that can be read are read");
    assert!(peak <= OVERHEAD_BYTES + BYTES_A_BYTE * input.len(), "{peak} bytes for {}", input.len());
    for entry in &entries {
        let shown = entry.clone().masked();
        if let Some(payload) = &shown.payload {
            assert_eq!(redact_payload(payload), *payload, "masked once is masked");
        }
        assert!(entry.payload.is_none() || entry.payload_bytes_kept().is_some());
        let _ = entry.via();
        let by_id = Filter { id: Some(entry.id.clone()), ..Filter::default() };
        let found = Quarantine::read(folder.path(), by_id).collect::<Result<Vec<_>, _>>();
        found.expect("files that can be read are read");
    }
    if opens {
        let books = Books::default();
        let settings = QuarantineSettings::new(64 * 1024, 10_000);
        let (opened, peak) = peak_bytes_of(|| Quarantine::open(folder.path(), settings, None, &books));
        let opened = opened.expect("files that can be read are read");
        assert!(peak <= OVERHEAD_BYTES + BYTES_A_BYTE * input.len(), "{peak} bytes for {}", input.len());
        let _ = (opened.counts(), opened.bytes());
    }
}

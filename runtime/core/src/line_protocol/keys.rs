//! The keys of one line: no two may be the same name, as tag or as field, and three names are not
//! the guest's to use.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use crate::line_protocol::fault::{LineFaultKind, Parsed};
use crate::line_protocol::rules::TenantTag;

/// Up to so many keys are compared pairwise, which is quicker than any table; with more, a guest
/// could make the check quadratic.
const PAIRWISE_MAX: usize = 24;

#[derive(Clone, Debug)]
struct LineKey {
    /// Signature of the unescaped name; equal names have equal signatures.
    signature: u64,
    /// The unescaped name, in the text or in `unescaped`.
    place: Range<usize>,
    was_escaped: bool,
}

/// The keys that a line has so far.
#[derive(Debug, Default)]
pub struct LineKeys {
    keys: Vec<LineKey>,
    /// Names that had escapes, with the escapes undone.
    unescaped: Vec<u8>,
    /// Hashes of whole names, used beyond `PAIRWISE_MAX`. Keyed at random: names can be chosen to
    /// share a signature, but not to share one of these.
    table: HashSet<u64, foldhash::fast::RandomState>,
    hasher: RandomState,
    /// One more name that is the host's; empty: there is none.
    reserved: Vec<u8>,
}

fn signature(name: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let head = &name[..name.len().min(8)];
    let tail = &name[name.len().saturating_sub(8)..];
    word(head) ^ word(tail).rotate_left(29) ^ (name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl LineKeys {
    pub fn clear(&mut self) {
        self.keys.clear();
        self.unescaped.clear();
        self.table.clear();
    }

    /// The tag that carries the tenant is not the guest's to use either.
    pub fn reserve(&mut self, tag: Option<&TenantTag>) {
        self.reserved.clear();
        if let Some(tag) = tag {
            self.reserved.extend_from_slice(&tag.key);
        }
    }

    /// Adds the key that stands at `place`.
    pub fn add(&mut self, text: &[u8], place: Range<usize>) -> Parsed<()> {
        let at = place.start;
        let was_escaped = memchr::memchr(b'\\', &text[place.clone()]).is_some();
        let place = if was_escaped { self.unescape(&text[place]) } else { place };
        let name = if was_escaped { &self.unescaped[place.clone()] } else { &text[place.clone()] };
        match name {
            b"device_id" | b"site_id" => return Err((LineFaultKind::Identity, at)),
            b"time" => return Err((LineFaultKind::TimeKey, at)),
            name if *name == *self.reserved => return Err((LineFaultKind::TenantTag, at)),
            _ => {}
        }
        let key = LineKey { signature: signature(name), place, was_escaped };
        if self.keys.len() < PAIRWISE_MAX {
            if self.holds(text, &key) {
                return Err((LineFaultKind::DuplicateKey, at));
            }
        } else {
            if self.table.is_empty() {
                let known: Vec<u64> =
                    self.keys.iter().map(|key| self.hasher.hash_one(self.name(text, key))).collect();
                self.table.extend(known);
            }
            let hash = self.hasher.hash_one(self.name(text, &key));
            // Two names of one hash are the same name, or the rarest of accidents: then look.
            if !self.table.insert(hash) && self.holds(text, &key) {
                return Err((LineFaultKind::DuplicateKey, at));
            }
        }
        self.keys.push(key);
        Ok(())
    }

    /// The places of its keys in the text, in their order; None for a key with escapes.
    pub(super) fn places(&self) -> impl Iterator<Item = Option<Range<usize>>> {
        self.keys.iter().map(|key| (!key.was_escaped).then(|| key.place.clone()))
    }

    fn holds(&self, text: &[u8], key: &LineKey) -> bool {
        self.keys
            .iter()
            .any(|other| other.signature == key.signature && self.name(text, other) == self.name(text, key))
    }

    fn name<'a>(&'a self, text: &'a [u8], key: &LineKey) -> &'a [u8] {
        if key.was_escaped { &self.unescaped[key.place.clone()] } else { &text[key.place.clone()] }
    }

    fn unescape(&mut self, name: &[u8]) -> Range<usize> {
        let start = self.unescaped.len();
        let mut bytes = name.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match (byte, bytes.peek()) {
                (b'\\', Some(b'\\' | b',' | b'=' | b' ')) => self.unescaped.extend(bytes.next()),
                _ => self.unescaped.push(byte),
            }
        }
        start..self.unescaped.len()
    }
}

//! Texts that repeat, each stored once and named by a number: tenants, sites and statuses.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// The texts, by their numbers.
#[derive(Debug, Default)]
pub struct Texts {
    bytes: String,
    /// The end of each text.
    ends: Vec<u32>,
}

impl Texts {
    pub fn get(&self, number: u32) -> &str {
        let place = number as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bytes[start..self.ends[place] as usize]
    }
}

/// Gives texts their numbers, in the order in which they come first.
#[derive(Debug, Default)]
pub struct TextInterner {
    texts: Texts,
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl TextInterner {
    /// The number of a text. None: the texts would take more than 4 GiB.
    pub fn intern(&mut self, text: &str) -> Option<u32> {
        let Self { texts, numbers, hasher } = self;
        let hash = hasher.hash_one(text);
        if let Some(known) = numbers.find(hash, |number| texts.get(*number) == text) {
            return Some(*known);
        }
        let number = u32::try_from(texts.ends.len()).ok()?;
        let end = u32::try_from(texts.bytes.len() + text.len()).ok()?;
        texts.bytes.push_str(text);
        texts.ends.push(end);
        numbers.insert_unique(hash, number, |number| hasher.hash_one(texts.get(*number)));
        Some(number)
    }

    pub fn finish(mut self) -> Texts {
        self.texts.bytes.shrink_to_fit();
        self.texts.ends.shrink_to_fit();
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_number_however_many_follow() {
        let mut interner = TextInterner::default();
        let text = |n: u32| if n == 3 { String::new() } else { format!("text-{n}") };
        for _ in 0..2 {
            for n in 0..10_000 {
                assert_eq!(interner.intern(&text(n)), Some(n));
            }
        }
        let texts = interner.finish();
        assert!((0..10_000).all(|n| texts.get(n) == text(n)));
    }
}

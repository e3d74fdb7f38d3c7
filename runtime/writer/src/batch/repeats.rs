//! Refusals in a row with the same unspecific words, and nothing accepted between them.

#[derive(Debug, Default)]
pub struct RepeatedRefusals {
    words: String,
    count: u32,
}

impl RepeatedRefusals {
    pub fn clear(&mut self) {
        self.count = 0;
    }

    pub(super) fn same(&self, words: &str) -> u32 {
        if self.words == without_numbers(words) { self.count } else { 0 }
    }

    pub(super) fn add(&mut self, words: &str) {
        self.count = self.same(words) + 1;
        self.words = without_numbers(words);
    }
}

/// The words by which two refusals are compared: request ids, ports and times differ each time.
pub(super) fn without_numbers(words: &str) -> String {
    let blurred = words
        .split_whitespace()
        .map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
    blurred.collect::<Vec<_>>().join(" ")
}

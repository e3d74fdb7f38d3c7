//! The table that finds the template of a topic: one step for each level of the topic.
//!
//! A bit stands for a template. At each level those templates stay whose filter has `+` or the same text there.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::topic::template::TopicTemplate;

/// The table of some templates, at most 64, of which each topic matches one.
#[derive(Clone, Debug)]
pub(super) struct LevelTable {
    rows: Vec<Row>,
}

/// The templates by one level of their filters.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Templates with `+` here.
    any: u64,
    literals: HashMap<Box<str>, u64, FixedState>,
    /// The bytes of the longest literal.
    literal_bytes_max: usize,
    /// Templates that end here.
    last: u64,
    /// Templates that end here in `/#`.
    open: u64,
}

impl LevelTable {
    pub fn new(templates: &[TopicTemplate]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for (index, template) in templates.iter().enumerate() {
            let bit = 1 << index;
            let mut count = 0;
            for (place, level) in template.filter_levels().enumerate() {
                if place == rows.len() {
                    rows.push(Row::default());
                }
                let row = &mut rows[place];
                match level {
                    None => row.any |= bit,
                    Some(literal) => {
                        *row.literals.entry(literal.into()).or_default() |= bit;
                        row.literal_bytes_max = row.literal_bytes_max.max(literal.len());
                    }
                }
                count = place + 1;
            }
            let end = &mut rows[count - 1];
            match template.is_open() {
                true => end.open |= bit,
                false => end.last |= bit,
            }
        }
        Self { rows }
    }

    /// The index of the template whose filter matches a topic.
    pub fn find(&self, topic: &str) -> Option<usize> {
        let mut alive = u64::MAX;
        let mut rest = topic.as_bytes();
        for (place, row) in self.rows.iter().enumerate() {
            let end = memchr::memchr(b'/', rest);
            let level = &rest[..end.unwrap_or(rest.len())];
            // A wildcard does not match a first level with $ (MQTT 3.1.1 section 4.7.2).
            let any = if place == 0 && topic.starts_with('$') { 0 } else { row.any };
            alive &= any | row.literal(level);
            let ended = if end.is_none() { row.open | row.last } else { row.open };
            if alive & ended != 0 {
                return Some((alive & ended).trailing_zeros() as usize);
            }
            match end {
                Some(end) if alive != 0 => rest = &rest[end + 1..],
                _ => return None,
            }
        }
        None
    }
}

impl Row {
    fn literal(&self, level: &[u8]) -> u64 {
        if level.len() > self.literal_bytes_max {
            return 0;
        }
        let level = std::str::from_utf8(level).expect("a level of a text is text");
        self.literals.get(level).copied().unwrap_or_default()
    }
}

//! The tape of a test message.

use std::cell::Cell;

use tidegate_json::Tape;

/// A tape that notes if a decoder asked for it.
#[derive(Debug)]
pub struct TestTape<'a> {
    tape: Option<Tape<'a>>,
    was_asked: Cell<bool>,
}

impl<'a> TestTape<'a> {
    pub fn new(tape: Option<Tape<'a>>) -> Self {
        Self { tape, was_asked: Cell::new(false) }
    }

    pub fn get(&self) -> Option<Tape<'a>> {
        self.was_asked.set(true);
        self.tape
    }

    pub fn was_asked(&self) -> bool {
        self.was_asked.get()
    }
}

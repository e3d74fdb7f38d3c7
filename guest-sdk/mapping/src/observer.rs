//! Observers of a mapping at work: each value, and where it stands in the payload.

use std::ops::Range;

use tidegate_guest::Refusal;
use tidegate_objects::Leaf;

/// The place of a value in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValuePlace {
    Bytes(Range<usize>),
    /// A pointer, or the name of a column.
    Named(String),
}

/// The part that a value has in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Tag,
    Field,
    Time,
}

/// A value of a payload.
#[derive(Debug)]
pub struct ObservedValue<'s, 'a> {
    pub role: Role,
    /// Its name in the line; the key of a time.
    pub name: &'s str,
    /// The place; `None`: it is not in the payload.
    pub place: Option<ValuePlace>,
    /// The value in the payload.
    pub raw: &'s Leaf<'a>,
    /// The value in the line; `None`: it is left out.
    pub value: Option<&'s Leaf<'a>>,
}

/// Sees each value that a mapping looks for, in the order of the mapping.
pub trait Observer {
    /// False: `see` is not called, and costs nothing.
    const SEES: bool;

    fn see(&mut self, seen: ObservedValue<'_, '_>);

    /// A line begins: that of the message, or of a record.
    fn line(&mut self, record: Option<usize>);

    /// A value that is not there, or no value of its type.
    fn refused(&mut self, key: &str, refusal: &Refusal);
}

/// Sees nothing: a decoder's.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl Observer for NoObserver {
    const SEES: bool = false;

    fn see(&mut self, _: ObservedValue<'_, '_>) {}

    fn line(&mut self, _: Option<usize>) {}

    fn refused(&mut self, _: &str, _: &Refusal) {}
}

//! The receiver of the values that a reader walks over.

use crate::number::Number;
use crate::text::Text;

/// A key, with the offset of its text. `None`: the value stands in no object.
pub(crate) type WalkedKey<'a> = Option<(usize, Text<'a>)>;

/// The receiver of values in the order of the text, a container before its content. `start` is an offset in
/// the text.
pub(crate) trait Recorder {
    /// `start` is behind the quote.
    fn string(&mut self, start: usize, text: Text<'_>, key: WalkedKey<'_>);
    fn number(&mut self, start: usize, number: Number<'_>, key: WalkedKey<'_>);
    /// `None`: null.
    fn literal(&mut self, start: usize, value: Option<bool>, key: WalkedKey<'_>);
    fn open(&mut self, start: usize, is_object: bool, key: WalkedKey<'_>);
    /// Closes the innermost container.
    fn close(&mut self);
}

/// A recorder that keeps nothing: values are only skipped.
pub(crate) struct NoRecorder;

impl Recorder for NoRecorder {
    #[inline(always)]
    fn string(&mut self, _: usize, _: Text<'_>, _: WalkedKey<'_>) {}

    #[inline(always)]
    fn number(&mut self, _: usize, _: Number<'_>, _: WalkedKey<'_>) {}

    #[inline(always)]
    fn literal(&mut self, _: usize, _: Option<bool>, _: WalkedKey<'_>) {}

    #[inline(always)]
    fn open(&mut self, _: usize, _: bool, _: WalkedKey<'_>) {}

    #[inline(always)]
    fn close(&mut self) {}
}

//! The trait that a decoder implements.

use crate::lines::Lines;
use crate::message::Message;
use crate::refusal::Refusal;
use crate::route::Route;

/// A decoder for one route.
pub trait Decoder: Sized + 'static {
    /// Called once, before the first message.
    ///
    /// # Errors
    /// The fault of the route or its options, and the expected value. The decoder then does not serve.
    fn configure(route: &Route) -> Result<Self, String>;

    /// Makes lines from one message. `self` can be lost between two messages, because a decoder can be
    /// started again at any time.
    ///
    /// # Errors
    /// The reason for the refusal. Lines that were written for this message are dropped.
    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal>;
}

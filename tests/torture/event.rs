//! The interface of an event.

use super::world::World;

/// Something that happens to a gateway, and is over some seconds later.
pub trait Event: Send {
    /// The name in the time line.
    fn name(&self) -> String;

    /// Begins it.
    ///
    /// # Panics
    /// The gateway does not do what it should.
    fn apply(&mut self, world: &mut World<'_>);

    /// Ends it.
    ///
    /// # Panics
    /// The gateway does not do what it should.
    fn undo(&mut self, world: &mut World<'_>);
}

//! Small values that the gateway keeps between messages, such as the last reading of a counter or the
//! last position.
//!
//! ```
//! # use tidegate_guest::{Lines, Message, Refusal};
//! /// Writes the difference to the last reading of a meter.
//! fn consumed(message: &Message<'_>, reading: u64, lines: &mut Lines) -> Result<(), Refusal> {
//!     let before = message.state().get_u64("reading");
//!     message.state().set_u64("reading", reading)?;
//!     match before {
//!         Some(before) if reading >= before => lines.line("meter").integer("used", (reading - before) as i64).end(),
//!         // The first reading, and the first after a reset, have no difference.
//!         _ => Ok(()),
//!     }
//! }
//! # let context = tidegate_guest::testing::Context::default();
//! # let decode = |reading| context.decode_one(reading, &mut |message, lines| consumed(message, 7, lines));
//! # assert_eq!(decode(b"").unwrap(), "");
//! # assert_eq!(decode(b"").unwrap(), "meter used=0i\n");
//! ```
//!
//! If a message is refused, its changes are undone. After a crash of the gateway a message can be decoded
//! again. If that matters, also keep the time or number of the reading, and make no line from one that is
//! not newer.

use std::fmt;

use crate::message::Message;
use crate::refusal::Refusal;

/// The reason for which a value was not set. The old value stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFault {
    /// A key has 1 to 64 bytes.
    BadKey,
    /// A value has at most 1,024 bytes.
    ValueTooLarge,
    /// A partition has at most 32 keys, and one message sets at most 64 different ones.
    TooManyKeys,
    /// The state of the tenant, or of the gateway, has no room.
    NoRoom,
}

impl StateFault {
    /// The code of the refusal.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadKey => "STATE_BAD_KEY",
            Self::ValueTooLarge => "STATE_VALUE_TOO_LARGE",
            Self::TooManyKeys => "STATE_TOO_MANY_KEYS",
            Self::NoRoom => "STATE_NO_ROOM",
        }
    }
}

impl fmt::Display for StateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadKey => "a key of the state has 1 to 64 bytes",
            Self::ValueTooLarge => "a value of the state has at most 1,024 bytes",
            Self::TooManyKeys => "a partition has at most 32 keys, and one message sets at most 64",
            Self::NoRoom => "the state is as large as it may be",
        })
    }
}

impl std::error::Error for StateFault {}

impl From<StateFault> for Refusal {
    fn from(fault: StateFault) -> Self {
        Self::new(fault.code(), fault.to_string())
    }
}

/// The state of the partition of one message. By default a partition is a device. Each call is a call to
/// the gateway. A decoder that makes no call does not import the interface.
#[derive(Clone, Copy, Debug)]
pub struct State<'a>(pub(crate) Message<'a>);

impl<'a> Message<'a> {
    /// Small values that the gateway keeps for the partition of this message. By default a partition is a
    /// device.
    pub fn state(&self) -> State<'a> {
        State(*self)
    }
}

impl State<'_> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        host::get(&self.0, key)
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// The value is above a limit and was not set. The operator `?` makes a refusal from this.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), StateFault> {
        host::set(&self.0, key, Some(value))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// The key is invalid, or one message set too many keys.
    pub fn remove(&self, key: &str) -> Result<(), StateFault> {
        host::set(&self.0, key, None)
    }

    /// A number that `set_u64` has set.
    pub fn get_u64(&self, key: &str) -> Option<u64> {
        Some(u64::from_le_bytes(self.get(key)?.try_into().ok()?))
    }

    /// # Errors
    /// Same as `set`.
    pub fn set_u64(&self, key: &str, value: u64) -> Result<(), StateFault> {
        self.set(key, &value.to_le_bytes())
    }

    /// A number that `set_f64` has set.
    pub fn get_f64(&self, key: &str) -> Option<f64> {
        self.get_u64(key).map(f64::from_bits)
    }

    /// # Errors
    /// Same as `set`.
    pub fn set_f64(&self, key: &str, value: f64) -> Result<(), StateFault> {
        self.set_u64(key, value.to_bits())
    }
}

#[cfg(target_arch = "wasm32")]
mod host {
    use super::StateFault;
    use crate::bindings::tidegate::ingest::state::{self, Fault};
    use crate::message::Message;

    pub fn get(message: &Message<'_>, key: &str) -> Option<Vec<u8>> {
        state::get(message.index, key)
    }

    pub fn set(message: &Message<'_>, key: &str, value: Option<&[u8]>) -> Result<(), StateFault> {
        state::set(message.index, key, value).map_err(|fault| match fault {
            Fault::BadKey => StateFault::BadKey,
            Fault::ValueTooLarge => StateFault::ValueTooLarge,
            Fault::TooManyKeys => StateFault::TooManyKeys,
            Fault::NoRoom => StateFault::NoRoom,
        })
    }
}

/// Natively the values are those of the test's context.
#[cfg(not(target_arch = "wasm32"))]
mod host {
    use super::StateFault;
    use crate::message::Message;

    pub fn get(message: &Message<'_>, key: &str) -> Option<Vec<u8>> {
        message.context?.state.borrow().get(key).cloned()
    }

    pub fn set(message: &Message<'_>, key: &str, value: Option<&[u8]>) -> Result<(), StateFault> {
        if !(1..=64).contains(&key.len()) {
            return Err(StateFault::BadKey);
        }
        if value.is_some_and(|value| value.len() > 1_024) {
            return Err(StateFault::ValueTooLarge);
        }
        let Some(context) = message.context else { return Ok(()) };
        let mut state = context.state.borrow_mut();
        match value {
            None => drop(state.remove(key)),
            Some(_) if state.len() >= 32 && !state.contains_key(key) => return Err(StateFault::TooManyKeys),
            Some(value) => drop(state.insert(key.to_owned(), value.to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Context;

    #[test]
    fn what_a_refused_message_had_set_is_taken_back() {
        let context = Context::default();
        let set = |number, refuse| {
            context.decode_one(b"", &mut |message, _| {
                message.state().set_u64("n", number)?;
                if refuse { Err(Refusal::new("NO", "")) } else { Ok(()) }
            })
        };
        set(1, false).unwrap();
        set(2, true).unwrap_err();
        let mut seen = None;
        context
            .decode_one(b"", &mut |message, _| {
                seen = message.state().get_u64("n");
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, Some(1));
    }

    #[test]
    fn limits_are_those_of_the_gateway() {
        let context = Context::default();
        let refusal = context
            .decode_one(b"", &mut |message, _| {
                let state = message.state();
                assert_eq!(state.set("", b"x"), Err(StateFault::BadKey));
                assert_eq!(state.set("k", &[0; 1_025]), Err(StateFault::ValueTooLarge));
                for n in 0..32 {
                    state.set(&format!("k{n}"), &[0; 1_024])?;
                }
                state.set("k7", b"again")?;
                state.remove("k8")?;
                state.set("k8", b"again")?;
                Ok(state.set("one more", b"x")?)
            })
            .unwrap_err();
        assert_eq!(refusal.code, "STATE_TOO_MANY_KEYS");
    }
}

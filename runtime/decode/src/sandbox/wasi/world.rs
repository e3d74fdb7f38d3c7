//! The world as a guest sees it in one call: its clocks, its random numbers, its handles, its output.

use crate::limits::{WASI_CLOCK_STEP_NS, WASI_HANDLES_MAX, WASI_START_NS};
use crate::sandbox::wasi::fault::WasiFault;
use crate::sandbox::wasi::output::CallOutput;

/// The seed of all random numbers before the first message, and of tables that a runtime makes once.
const CONSTANT_SEED: u64 = 42;

/// The world of one instance.
#[derive(Debug)]
pub struct World {
    /// Nanoseconds since 1970: the message's time of receipt.
    now_ns: u64,
    /// Nanoseconds of the monotonic clock.
    monotonic_ns: u64,
    random: SplitMix,
    handles: u32,
    pub output: CallOutput,
}

impl Default for World {
    fn default() -> Self {
        Self {
            now_ns: WASI_START_NS,
            monotonic_ns: 0,
            random: SplitMix(CONSTANT_SEED),
            handles: 0,
            output: CallOutput::default(),
        }
    }
}

impl World {
    /// Sets the clocks and the random numbers for a message. Handles stay: a guest keeps some over its life.
    pub fn begin_message(&mut self, received_ns: i64, seed: u64) {
        self.now_ns = received_ns.max(0) as u64;
        self.monotonic_ns = 0;
        self.random = SplitMix(seed);
    }

    /// The time of receipt, in seconds and nanoseconds.
    pub fn now(&self) -> (u64, u32) {
        (self.now_ns / 1_000_000_000, (self.now_ns % 1_000_000_000) as u32)
    }

    /// The monotonic clock, which moves by each question.
    pub fn monotonic_ns(&mut self) -> u64 {
        self.monotonic_ns = self.monotonic_ns.saturating_add(WASI_CLOCK_STEP_NS);
        self.monotonic_ns
    }

    /// Passes time: what is slept is over at once.
    pub fn sleep(&mut self, ns: u64) {
        self.monotonic_ns = self.monotonic_ns.saturating_add(ns);
    }

    /// Passes time up to an instant.
    pub fn sleep_until(&mut self, ns: u64) {
        self.monotonic_ns = self.monotonic_ns.max(ns);
    }

    pub fn random(&mut self) -> u64 {
        self.random.next()
    }

    /// The seed of tables, the same for all guests.
    pub fn constant_seed() -> (u64, u64) {
        let mut random = SplitMix(CONSTANT_SEED);
        (random.next(), random.next())
    }

    /// Counts a handle that the guest is given.
    ///
    /// # Errors
    /// It has too many.
    pub fn take_handle(&mut self) -> wasmtime::Result<()> {
        if self.handles >= WASI_HANDLES_MAX {
            return Err(WasiFault::error(format!("holds more than {WASI_HANDLES_MAX} handles of WASI")));
        }
        self.handles += 1;
        Ok(())
    }

    /// Counts a handle that the guest gave back.
    pub fn drop_handle(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }
}

/// The seed of a message: the same for the same message of a route, everywhere.
pub fn message_seed(route: [&str; 2], received_ns: i64, payload: &[u8]) -> u64 {
    let mut seed = SplitMix(CONSTANT_SEED);
    for text in route {
        seed.absorb(text.as_bytes());
    }
    seed.absorb(&received_ns.to_le_bytes());
    seed.absorb(payload);
    seed.0
}

/// The generator SplitMix64: no secret, and the same on every machine.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Mixes bytes and their length into the state.
    fn absorb(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 ^= u64::from_le_bytes(word);
            self.0 = self.next();
        }
        self.0 ^= bytes.len() as u64;
        self.0 = self.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_own_seed_and_the_same_one_everywhere() {
        let route = ["acme", "boiler"];
        let seed = message_seed(route, 7, b"payload");
        // Written down: another machine and another version of this program give it too.
        assert_eq!(seed, 0xA534_C103_DDF0_579F, "{seed:#x}");
        for other in [
            message_seed(["acme", "boile"], 7, b"rpayload"),
            message_seed(["globex", "boiler"], 7, b"payload"),
            message_seed(route, 8, b"payload"),
            message_seed(route, 7, b"payloae"),
            message_seed(route, 7, b"payload\0"),
            message_seed(route, 7, b""),
        ] {
            assert_ne!(seed, other);
        }
    }

    #[test]
    fn clocks_begin_anew_with_each_message_and_move_by_questions_and_sleep_only() {
        let mut world = World::default();
        assert_eq!(world.now(), (1_767_225_600, 0));
        world.begin_message(1_700_000_000_000_000_001, 1);
        assert_eq!(world.now(), (1_700_000_000, 1));
        assert_eq!((world.monotonic_ns(), world.monotonic_ns()), (1_000, 2_000));
        world.sleep(3_000_000_000);
        assert_eq!(world.monotonic_ns(), 3_000_003_000);
        world.sleep_until(5);
        world.sleep(u64::MAX);
        assert_eq!(world.monotonic_ns(), u64::MAX);
        world.begin_message(-5, 1);
        assert_eq!((world.now(), world.monotonic_ns()), ((0, 0), 1_000));
    }
}

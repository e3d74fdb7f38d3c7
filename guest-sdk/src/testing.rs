//! Helpers to run a decoder natively, without a gateway, in unit tests.

pub(crate) mod context;
pub(crate) mod tape;

use std::path::Path;

use tidegate_json::{Tape, TapeWriter};

use crate::decoder::Decoder;
use crate::ignored::{self, Ignored};
use crate::lines::Lines;
use crate::message::Message;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::testing::tape::TestTape;

pub use crate::testing::context::Context;

/// The time of receipt of test messages: 2023-11-14T22:13:20Z.
pub const RECEIVED_NS: i64 = 1_700_000_000_000_000_000;

impl Context {
    /// Decodes one payload with a function and returns its lines. A function that asks for the payload's tape is
    /// called once more without one.
    ///
    /// # Errors
    /// The refusal of the function. Its changes of the state are undone.
    pub fn decode_one(
        &self,
        payload: &[u8],
        decode: &mut dyn FnMut(&Message<'_>, &mut Lines) -> Result<(), Refusal>,
    ) -> Result<String, Refusal> {
        self.decode_at(payload, RECEIVED_NS, decode)
    }

    fn decode_at(
        &self,
        payload: &[u8],
        received_ns: i64,
        decode: &mut dyn FnMut(&Message<'_>, &mut Lines) -> Result<(), Refusal>,
    ) -> Result<String, Refusal> {
        let mut writer = TapeWriter::default();
        let has_tape = writer.write(payload).unwrap_or(false);
        // SAFETY: this payload was read last.
        let tape = TestTape::new(unsafe { writer.tape(payload) });
        let before = self.state.borrow().clone();
        let lines = self.decode_once(payload, received_ns, &tape, decode);
        if has_tape && tape.was_asked() {
            let after = self.state.replace(before);
            // What it leaves out was recorded the first time.
            let recorded = ignored::replace(Ignored::default());
            let without = self.decode_once(payload, received_ns, &TestTape::new(None), decode);
            ignored::replace(recorded);
            assert_eq!(lines, without, "a tape must change nothing of what a decoder makes");
            assert_eq!(*self.state.borrow(), after, "a tape must change nothing of what a decoder keeps");
        }
        lines
    }

    fn decode_once(
        &self,
        payload: &[u8],
        received_ns: i64,
        tape: &TestTape<'_>,
        decode: &mut dyn FnMut(&Message<'_>, &mut Lines) -> Result<(), Refusal>,
    ) -> Result<String, Refusal> {
        let mut lines = Lines::default();
        let before = self.state.borrow().clone();
        let message = Message { payload, received_ns, index: 0, context: Some(self), tape: Some(tape) };
        decode(&message, &mut lines).inspect_err(|_| drop(self.state.replace(before)))?;
        Ok(String::from_utf8(lines.bytes).expect("the line builder writes text"))
    }
}

/// A route with these options.
pub fn route(options: &[(&str, &str)]) -> Route {
    let options = options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Route { options, ..Route::default() }
}

/// Decodes one payload with a new decoder and returns its lines.
///
/// # Errors
/// The refusal of the decoder. A refusal by `configure` has the code `CONFIGURE`.
pub fn decode<D: Decoder>(route: &Route, payload: &[u8]) -> Result<String, Refusal> {
    decode_with::<D>(route, payload, RECEIVED_NS, &Context::default())
}

/// Same as `decode`, with the answers of the gateway about the message.
///
/// # Errors
/// Same as `decode`.
pub fn decode_with<D: Decoder>(
    route: &Route,
    payload: &[u8],
    received_ns: i64,
    context: &Context,
) -> Result<String, Refusal> {
    let mut decoder = D::configure(route).map_err(|why| Refusal::new("CONFIGURE", why))?;
    context.decode_at(payload, received_ns, &mut |message, lines| decoder.decode(message, lines))
}

/// Runs a folder of fixtures. Beside each payload file `NAME.payload` there is its expected result:
/// `NAME.lp` (lines) or `NAME.err` (the beginning of `CODE: detail`).
///
/// # Panics
/// A result differs, there is no fixture, or the folder cannot be read.
pub fn fixtures<D: Decoder>(route: &Route, folder: impl AsRef<Path>) {
    let folder = folder.as_ref();
    let mut count = 0;
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder's entry").path();
        if path.extension().is_none_or(|extension| extension != "payload") {
            continue;
        }
        let payload = std::fs::read(&path).expect("a payload that can be read");
        let answer = decode::<D>(route, &payload);
        let expected = |extension: &str| std::fs::read_to_string(path.with_extension(extension)).ok();
        match (expected("lp"), expected("err"), answer) {
            (Some(lines), None, Ok(got)) => assert_eq!(got, lines, "{}", path.display()),
            (None, Some(error), Err(refusal)) => {
                let (got, error) = (refusal.to_string(), error.trim_end());
                assert!(got.starts_with(error), "{}: got {got:?}, expected {error:?}", path.display());
            }
            (_, _, answer) => panic!("{}: got {answer:?}, which is not what lies beside it", path.display()),
        }
        count += 1;
    }
    assert!(count > 0, "there is no .payload file in {}", folder.display());
}

/// A decoder for many messages, as in the gateway, for benchmarks.
#[derive(Debug)]
pub struct BenchDecoder<D> {
    decoder: D,
    lines: Lines,
    context: Option<Context>,
}

impl<D: Decoder> BenchDecoder<D> {
    /// # Errors
    /// The decoder refuses the route.
    pub fn new(route: &Route) -> Result<Self, String> {
        Ok(Self { decoder: D::configure(route)?, lines: Lines::default(), context: None })
    }

    /// Adds the answers of the gateway about all messages, and the state of their partition.
    pub fn with_context(self, context: Context) -> Self {
        Self { context: Some(context), ..self }
    }

    /// Decodes payloads with the time of receipt `RECEIVED_NS`. Returns the lines of all that were not
    /// refused.
    pub fn decode_batch(&mut self, payloads: &[&[u8]]) -> &[u8] {
        self.lines.truncate(0);
        for payload in payloads {
            self.decode_one(payload, None);
        }
        &self.lines.bytes
    }

    /// The same as `decode_batch`, of payloads with their tapes.
    pub fn decode_batch_with_tapes(&mut self, tapes: &[Tape<'_>]) -> &[u8] {
        self.lines.truncate(0);
        for tape in tapes {
            self.decode_one(tape.text(), Some(&TestTape::new(Some(*tape))));
        }
        &self.lines.bytes
    }

    #[inline]
    fn decode_one(&mut self, payload: &[u8], tape: Option<&TestTape<'_>>) {
        let before = self.lines.len();
        let message =
            Message { payload, received_ns: RECEIVED_NS, index: 0, context: self.context.as_ref(), tape };
        if self.decoder.decode(&message, &mut self.lines).is_err() {
            self.lines.truncate(before);
        }
    }
}

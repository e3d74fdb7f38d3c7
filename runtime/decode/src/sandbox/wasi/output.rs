//! The output of a guest: what it writes in one call, up to a bound, for its log.

use crate::limits::WASI_OUTPUT_BYTES_KEPT;
use crate::route::guest_log::GuestLogLevel;

/// A stream that a guest writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    /// The number of the stream's handles.
    pub fn rep(self) -> u32 {
        match self {
            Self::Out => 1,
            Self::Err => 2,
        }
    }

    /// The stream of a handle.
    pub fn of_rep(rep: u32) -> Self {
        if rep == Self::Err.rep() { Self::Err } else { Self::Out }
    }
}

/// The output of one call.
#[derive(Debug, Default)]
pub struct CallOutput {
    out: Vec<u8>,
    err: Vec<u8>,
    dropped: u64,
}

impl CallOutput {
    /// Keeps what there is room for, and counts the rest.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let room = WASI_OUTPUT_BYTES_KEPT - (self.out.len() + self.err.len());
        let kept = &bytes[..bytes.len().min(room)];
        self.dropped += (bytes.len() - kept.len()) as u64;
        match stream {
            Stream::Out => self.out.extend_from_slice(kept),
            Stream::Err => self.err.extend_from_slice(kept),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty() && self.err.is_empty()
    }

    /// The last line that was written to stderr, else to stdout: what a runtime says before it gives up.
    pub fn last_line(&self) -> Option<String> {
        let last = |bytes: &[u8]| lines(bytes).pop();
        last(&self.err).or_else(|| last(&self.out))
    }

    /// The lines for the log, with a last one about what was dropped; empty afterwards.
    pub fn take(&mut self) -> Vec<(GuestLogLevel, String)> {
        let output = std::mem::take(self);
        let leveled = |level, bytes: &[u8]| lines(bytes).into_iter().map(move |line| (level, line));
        let mut texts: Vec<_> = leveled(GuestLogLevel::Info, &output.out)
            .chain(leveled(GuestLogLevel::Warn, &output.err))
            .collect();
        if output.dropped > 0 {
            let text = format!("{} more bytes of output were dropped", output.dropped);
            texts.push((GuestLogLevel::Warn, text));
        }
        texts
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_its_begin_and_counts_the_rest() {
        let mut output = CallOutput::default();
        for _ in 0..1_000 {
            output.write(Stream::Out, &[b'x'; 4_096]);
        }
        output.write(Stream::Err, b"late");
        assert!(output.out.capacity() + output.err.capacity() <= 2 * WASI_OUTPUT_BYTES_KEPT);
        let texts = output.take();
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[0].1.len(), WASI_OUTPUT_BYTES_KEPT);
        let dropped = 1_000 * 4_096 + 4 - WASI_OUTPUT_BYTES_KEPT;
        assert_eq!(texts[1], (GuestLogLevel::Warn, format!("{dropped} more bytes of output were dropped")));
        assert!(output.is_empty() && output.take().is_empty());
    }

    #[test]
    fn lines_have_the_level_of_their_stream_and_the_last_of_stderr_is_the_reason() {
        let mut output = CallOutput::default();
        output.write(Stream::Err, b"Traceback:\n  line 1\nValueError: no \xff\n\n");
        output.write(Stream::Out, b"read\n\nwritten");
        assert_eq!(output.last_line().unwrap(), "ValueError: no \u{fffd}");
        let levels: Vec<_> = output.take().into_iter().map(|(level, _)| level).collect();
        use GuestLogLevel::{Info, Warn};
        assert_eq!(levels, [Info, Info, Warn, Warn, Warn]);
    }
}

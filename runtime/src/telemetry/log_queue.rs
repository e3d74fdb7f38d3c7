//! The way of log lines to stderr. It never blocks its caller: nobody may read stderr.
//!
//! - A line that stderr takes at once is written by its caller, without waiting (RWF_NOWAIT of writev(2)).
//! - Any other waits in a queue of bounded size for a thread, and so do the lines behind it.
//! - Lines that find no room are dropped and counted. Once stderr is read again, the log says how many.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use crate::core::worker::{self, Priority};
use crate::limits::LOG_QUEUE_BYTES_MAX;
use crate::telemetry::progress;

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread has lines in hand.
    busy: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    written: Condvar,
    dropped: AtomicU64,
    /// The descriptor that is written without waiting, where its kind allows that.
    direct: Option<RawFd>,
}

/// The queue of log lines. Clones are the same queue.
#[derive(Clone)]
pub struct LogQueue(Arc<Shared>);

impl LogQueue {
    /// Starts the thread that writes to stderr.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn stderr() -> io::Result<Self> {
        Self::start(io::stderr(), Some(io::stderr().as_raw_fd()))
    }

    fn start(out: impl Write + Send + 'static, direct: Option<RawFd>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            more: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
            direct,
        });
        let writing = shared.clone();
        worker::start("log", Priority::Normal, move || write_lines(&writing, out))?;
        Ok(Self(shared))
    }

    /// Writes or queues a line, or drops it.
    pub fn push(&self, mut line: Vec<u8>) {
        let mut queue = self.0.queue.lock();
        if let (Some(descriptor), true, false) = (self.0.direct, queue.lines.is_empty(), queue.busy) {
            let written = write_now(descriptor, &line);
            line.drain(..written);
            if line.is_empty() {
                return;
            }
        }
        if queue.bytes + line.len() > LOG_QUEUE_BYTES_MAX {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        drop(queue);
        self.0.more.notify_one();
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, at most for `patience`.
    pub fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut queue = self.0.queue.lock();
        while (queue.busy || !queue.lines.is_empty())
            && !self.0.written.wait_until(&mut queue, deadline).timed_out()
        {}
    }
}

/// Writes as much as is taken without waiting; gives the number of bytes.
fn write_now(descriptor: RawFd, line: &[u8]) -> usize {
    let part = libc::iovec { iov_base: line.as_ptr().cast_mut().cast(), iov_len: line.len() };
    // SAFETY: one buffer, which is only read, and lives until the call returns. -1: the current offset.
    let written = unsafe { libc::pwritev2(descriptor, &raw const part, 1, -1, libc::RWF_NOWAIT) };
    usize::try_from(written).unwrap_or(0).min(line.len())
}

/// Writes lines for ever, many at once.
fn write_lines(shared: &Shared, mut out: impl Write) {
    let mut said = 0;
    loop {
        let lines = {
            let mut queue = shared.queue.lock();
            queue.busy = false;
            shared.written.notify_all();
            while queue.lines.is_empty() {
                shared.more.wait(&mut queue);
            }
            queue.busy = true;
            queue.bytes = 0;
            std::mem::take(&mut queue.lines)
        };
        let bytes = lines.iter().flatten().copied().collect::<Vec<u8>>();
        // A stderr that is closed takes nothing, and nothing can be done about it.
        let _ = progress::suspended(|| out.write_all(&bytes).and_then(|()| out.flush()));
        let dropped = shared.dropped.load(Ordering::Relaxed);
        if dropped > said {
            let lines = dropped - std::mem::replace(&mut said, dropped);
            tracing::warn!(lines, "lines of the log were dropped, because stderr was not read");
        }
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter(self.clone())
    }
}

/// Takes one line, as the log formats it.
pub struct LineWriter(LogQueue);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_reader_that_does_not_read_stops_nobody_and_the_lost_lines_are_counted() {
        let (reader, writer) = io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        let descriptor = writer.as_raw_fd();
        let queue = LogQueue::start(writer, Some(descriptor)).unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let lines = 2 * (LOG_QUEUE_BYTES_MAX + (1 << 20)) / line.len();
        (0..lines).for_each(|_| queue.push(line.clone()));
        let dropped = queue.dropped() as usize;
        assert!(dropped > 0 && dropped < lines, "{dropped}");
        // Nobody waits for longer than it is asked to.
        queue.flush(Duration::from_millis(10));
        let reading = std::thread::spawn(move || {
            let mut all = vec![0; (lines - dropped) * 1000];
            let mut reader = reader;
            reader.read_exact(&mut all).unwrap();
            all
        });
        assert!(reading.join().unwrap().chunks(1000).all(|read| read == line), "lines are cut or mixed");
    }
}

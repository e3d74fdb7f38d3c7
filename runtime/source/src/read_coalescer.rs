//! The wait of a source before a read: a steady trickle stays in the socket, so that one read takes several
//! messages: see `tidegate_core::batching`.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::limits;
use tidegate_core::batching::{BatchDelay, LARGE_GROUP, LARGE_READ, SOURCE_DELAY};

/// One wait in so many is watched: it ends early if no more bytes come.
const WATCHED: u32 = 8;

/// With so many bytes in the socket there is nothing to wait for: some thirty messages of a sensor.
const ENOUGH_BYTES: libc::c_int = 8 << 10;

/// The reads of one socket, and the wait before the next.
#[derive(Debug)]
pub struct ReadCoalescer {
    batch_delay: BatchDelay,
    last: Option<Instant>,
    waits: u32,
    /// The last read brought so many that one more wait would bring nothing better.
    is_large: bool,
    /// The last wait was not watched: the messages that it brought show if it was worth it.
    unwatched: bool,
    socket: RawFd,
}

impl ReadCoalescer {
    /// A coalescer for `socket`, which must stay open for as long.
    pub fn new(socket: &impl AsRawFd) -> Self {
        let batch_delay = BatchDelay::new(SOURCE_DELAY, LARGE_READ);
        Self {
            batch_delay,
            last: None,
            waits: 0,
            is_large: false,
            unwatched: false,
            socket: socket.as_raw_fd(),
        }
    }

    /// Records that a read brought so many messages.
    pub fn record_read(&mut self, messages: usize) {
        if messages == 0 {
            return;
        }
        if std::mem::take(&mut self.unwatched) {
            // The first would have come without the wait.
            self.batch_delay.record_wait(messages - 1);
        }
        self.is_large = messages >= LARGE_GROUP;
        let now = Instant::now();
        let since = self.last.replace(now).map_or(Duration::MAX, |last| now - last);
        // A pause is no trickle.
        self.batch_delay.record_group(messages, since.min(Duration::from_secs(1)));
    }

    /// Waits before the next read, if a wait is worth it.
    pub async fn wait(&mut self) {
        let Some(last) = self.last else { return };
        let wait = if self.is_large { Duration::ZERO } else { self.batch_delay.wait(last.elapsed(), 0) };
        let mut unread = if wait.is_zero() { 0 } else { self.unread() };
        if wait.is_zero() || unread >= ENOUGH_BYTES {
            self.waits = 0;
            return;
        }
        self.waits += 1;
        let _low_water = LowWaterMark::begin(self.socket);
        let parts = self.batch_delay.parts();
        if parts == 1 || self.waits % WATCHED != 1 {
            self.unwatched = true;
            return tokio::time::sleep(wait).await;
        }
        for _ in 0..parts {
            tokio::time::sleep(wait / parts).await;
            let before = std::mem::replace(&mut unread, self.unread());
            if unread <= before {
                return self.batch_delay.record_stall();
            }
        }
    }

    /// Bytes that lie in the socket.
    fn unread(&self) -> libc::c_int {
        let mut bytes = 0;
        // SAFETY: FIONREAD (tcp(7)) writes one int, into one of ours.
        unsafe { libc::ioctl(self.socket, libc::FIONREAD, &raw mut bytes) };
        bytes
    }
}

/// A guard during which a socket wakes nobody until half a read has come. A wait by time would otherwise
/// wake a thread a message (SO_RCVLOWAT, socket(7)). The end of the stream still wakes at once.
struct LowWaterMark(RawFd);

impl LowWaterMark {
    fn begin(socket: RawFd) -> Self {
        set_low_water(socket, (limits::SOCKET_READ_BYTES / 2) as libc::c_int);
        Self(socket)
    }
}

impl Drop for LowWaterMark {
    fn drop(&mut self) {
        set_low_water(self.0, 1);
    }
}

fn set_low_water(socket: RawFd, bytes: libc::c_int) {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // A socket that takes it not only wakes more often.
    // SAFETY: the option is an int, and is read from one of ours.
    unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), len) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// Messages of one byte: the sender has `window` of them under way and waits for the answer
    /// to all, or sends one each millisecond. Gives how many groups were waited for.
    async fn waits(window: Option<usize>) -> usize {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut send = far.try_clone().unwrap();
        let (answers, answered) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            while send.write_all(&vec![1; window.unwrap_or(1)]).is_ok() {
                match window {
                    Some(_) => {
                        if answered.recv().is_err() {
                            return;
                        }
                    }
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let mut coalescer = ReadCoalescer::new(&near);
        let (mut waited, mut groups) = (0, 0);
        while groups < 100 {
            let mut read = [0; 4096];
            match near.read(&mut read) {
                Ok(messages) => {
                    groups += 1;
                    coalescer.record_read(messages);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let _ = answers.send(());
                }
                Err(_) => tokio::time::sleep(Duration::from_micros(200)).await,
            }
            let before = coalescer.waits;
            coalescer.wait().await;
            waited += usize::from(coalescer.waits > before);
        }
        waited
    }

    #[tokio::test]
    async fn a_sender_that_waits_for_its_answers_is_soon_not_waited_for() {
        let waited = waits(Some(5)).await;
        assert!(waited <= 8, "{waited}");
    }

    #[tokio::test]
    async fn a_sender_that_waits_for_nothing_is_gathered() {
        let waited = waits(None).await;
        assert!(waited >= 50, "{waited}");
    }
}

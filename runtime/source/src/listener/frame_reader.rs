//! The reading side of one device's connection: bounded in memory, and in the time that a packet takes.
//! The buffer grows with the bytes that come, a step at a time, whatever a packet announces.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits;
use crate::listener::close::{CloseInfo, CloseReason};
use crate::listener::counters::ListenerCounters;
use crate::listener::packet_memory::{PacketLease, PacketMemoryError};
use crate::listener::proven_connections::Revocation;
use crate::listener::socket::SocketReader;
use crate::mqtt::control::Frame;
use crate::mqtt::error::PacketError;
use crate::mqtt::framing::{FrameLimits, Framer};

/// Reads into the framer, without a buffer while nothing is under way: ten thousand devices that
/// say nothing cost no buffer at all.
pub struct FrameReader<'s> {
    reader: SocketReader<'s>,
    pub framer: Framer,
    counters: Arc<ListenerCounters>,
    /// It is counted among the connections with a buffer.
    has_buffer: bool,
    frames: FrameLimits,
    /// The bytes of the buffer in the memory that all connections share.
    pub lease: PacketLease,
    /// Bytes of whole messages that wait outside of the buffer, and count with it.
    queued_bytes: usize,
    revocation: Arc<Revocation>,
    /// Bytes to ask for: it follows the device's packets.
    read_bytes: usize,
    /// The time of the first byte of the packet that is under way.
    pub packet_began: Option<Instant>,
}

impl<'s> FrameReader<'s> {
    pub fn new(
        reader: SocketReader<'s>,
        frames: FrameLimits,
        counters: Arc<ListenerCounters>,
        lease: PacketLease,
        revocation: Arc<Revocation>,
    ) -> Self {
        Self {
            reader,
            framer: Framer::new(frames),
            counters,
            has_buffer: false,
            frames,
            lease,
            queued_bytes: 0,
            revocation,
            read_bytes: limits::LISTENER_FIRST_READ_BYTES,
            packet_began: None,
        }
    }

    /// The socket that is read.
    pub fn socket(&self) -> &impl AsRawFd {
        &self.reader
    }

    /// True if the peer has closed its side, even if bytes before that are unread (POLLRDHUP of poll(2)).
    pub fn is_hung_up(&self) -> bool {
        let events = libc::POLLRDHUP;
        let mut poll = libc::pollfd { fd: self.reader.as_raw_fd(), events, revents: 0 };
        // SAFETY: one pollfd of ours, and no wait.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        ready > 0 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }

    /// Bytes that lie in the socket.
    pub fn unread_in_socket(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD (tcp(7)) writes one int, into one of ours.
        unsafe { libc::ioctl(self.reader.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        usize::try_from(bytes).unwrap_or(0)
    }

    /// True if the socket may take no more bytes: half of its buffer counts, because the system uses the other
    /// half for itself (tcp(7)).
    pub fn is_socket_full(&self) -> bool {
        let (mut bytes, mut len): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the option is an int, and is written into one of ours.
        unsafe {
            libc::getsockopt(
                self.reader.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw mut bytes).cast(),
                &raw mut len,
            )
        };
        self.unread_in_socket() >= usize::try_from(bytes).unwrap_or(0) / 2
    }

    /// Waits for bytes and reads those that are there.
    pub async fn fill(&mut self, silence_max: Option<Duration>) -> Result<(), CloseInfo> {
        loop {
            if !self.framer.has_partial_frame() {
                self.release();
            }
            self.wait(silence_max).await?;
            let step = self.reserve()?;
            let room = self.framer.read_buffer_of(step);
            if !std::mem::replace(&mut self.has_buffer, true) {
                self.counters.buffers.fetch_add(1, Ordering::Relaxed);
            }
            match self.reader.try_read(room) {
                Ok(0) => {
                    return Err(if self.framer.has_partial_frame() {
                        CloseInfo::new(CloseReason::Lost, "the connection closed in the middle of a packet")
                    } else {
                        CloseReason::Left.into()
                    });
                }
                Ok(read) => {
                    if read >= self.read_bytes {
                        self.read_bytes = (self.read_bytes * 4).min(limits::SOCKET_READ_BYTES);
                    } else if read < self.read_bytes / 8 {
                        self.read_bytes = (self.read_bytes / 2).max(limits::LISTENER_FIRST_READ_BYTES);
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads on and throws the bytes away, for `CLOSE_DRAIN_MS`: a socket that is closed with bytes unread is
    /// reset, and our last packet would be lost with it.
    pub async fn drain_before_close(&mut self) {
        // The bytes are not parsed any more.
        self.framer = Framer::new(self.frames);
        self.release();
        let mut read = 0;
        let reading = async {
            let mut room = Vec::new();
            while read < limits::CONTROL_PACKET_BYTES_MAX && self.reader.readable().await.is_ok() {
                room.clear();
                room.reserve(limits::LISTENER_FIRST_READ_BYTES);
                match self.reader.try_read(&mut room) {
                    Ok(0) => return,
                    Ok(bytes) => read += bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _ = timeout(Duration::from_millis(limits::CLOSE_DRAIN_MS), reading).await;
    }

    async fn wait(&mut self, silence_max: Option<Duration>) -> Result<(), CloseInfo> {
        let midway = self.framer.has_partial_frame();
        let deadline = if midway {
            let began = *self.packet_began.get_or_insert_with(Instant::now);
            Some(began + Duration::from_secs(limits::PACKET_TIMEOUT_S))
        } else {
            silence_max.map(|silence_max| Instant::now() + silence_max)
        };
        if let Some(ready) = self.reader.readable().now_or_never() {
            return Ok(ready?);
        }
        // It may be long before the next byte: it holds only the bytes that came meanwhile.
        self.trim()?;
        let (reader, lease, revocation) = (&mut self.reader, &self.lease, &self.revocation);
        let waiting = async {
            tokio::select! {
                biased;
                ready = reader.readable() => Ok(ready?),
                () = lease.woken() => Err(woken(lease, revocation)),
            }
        };
        match deadline {
            None => waiting.await,
            Some(deadline) => match timeout_at(deadline, waiting).await {
                Ok(ended) => ended,
                Err(_) if midway => Err(CloseInfo::new(
                    CloseReason::PacketTimeout,
                    format!("a packet was not complete after {} s", limits::PACKET_TIMEOUT_S),
                )),
                Err(_) => {
                    Err(CloseInfo::new(CloseReason::KeepAlive, "nothing came for 1.5 times the keep-alive"))
                }
            },
        }
    }

    /// The end of the connection after others have woken it.
    pub fn woken(&self) -> CloseInfo {
        woken(&self.lease, &self.revocation)
    }

    /// Reserves the next step of the buffer in the memory that all connections share; gives its size.
    fn reserve(&mut self) -> Result<usize, CloseInfo> {
        if self.lease.is_evicted() {
            return Err(self.woken());
        }
        let unread = self.framer.unread();
        // A quarter of the bytes that are there for a large packet, so that it is not copied again and again.
        let missing_bytes = self.framer.needed() - unread;
        let step = self.read_bytes.max(missing_bytes.min(unread / 4));
        let wanted = self.counted(unread + step);
        if wanted <= self.lease.bytes() || self.lease.resize(wanted).is_ok() {
            return Ok(step);
        }
        // A larger buffer is a favour; the next bytes of the packet are not.
        self.read_bytes = limits::LISTENER_FIRST_READ_BYTES.min(self.read_bytes);
        let wanted = self.counted(unread + self.read_bytes);
        self.lease.resize(wanted.max(self.lease.bytes()))?;
        Ok(self.read_bytes)
    }

    /// Gives back the capacity beyond the bytes that came and one first step.
    fn trim(&mut self) -> Result<(), CloseInfo> {
        let partial_bytes = self.framer.unread() + limits::LISTENER_FIRST_READ_BYTES;
        if self.counted(partial_bytes) < self.lease.bytes() {
            self.framer.shrink(partial_bytes);
            self.lease.resize(self.counted(partial_bytes))?;
        }
        Ok(())
    }

    /// Counts messages of so many bytes that wait outside of the buffer.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn set_queued_bytes(&mut self, bytes: usize) -> Result<(), CloseInfo> {
        if std::mem::replace(&mut self.queued_bytes, bytes) != bytes {
            self.lease.resize(self.counted(self.framer.unread()))?;
        }
        Ok(())
    }

    /// Bytes that count, with so many in the buffer.
    fn counted(&self, buffer_bytes: usize) -> usize {
        beyond_first(buffer_bytes) + beyond_first(self.queued_bytes)
    }

    /// Gives the buffer back.
    fn release(&mut self) {
        self.framer.shrink(0);
        // Less than before is never refused.
        let _ = self.lease.resize(self.counted(0));
        if std::mem::take(&mut self.has_buffer) {
            debug_assert_eq!(self.framer.capacity(), 0);
            self.counters.buffers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The next packet of the bytes that were read, if it is there whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, PacketError> {
        self.framer.next_frame()
    }
}

impl Drop for FrameReader<'_> {
    fn drop(&mut self) {
        self.counters.buffers.fetch_sub(usize::from(self.has_buffer), Ordering::Relaxed);
    }
}

/// Bytes of a buffer that count.
fn beyond_first(bytes: usize) -> usize {
    bytes.saturating_sub(limits::LISTENER_FIRST_READ_BYTES)
}

fn woken(lease: &PacketLease, revocation: &Revocation) -> CloseInfo {
    if lease.is_evicted() {
        PacketMemoryError::Evicted.into()
    } else if let Some(end) = revocation.ended() {
        end
    } else {
        CloseInfo::new(CloseReason::TakenOver, "another connection came with the same client id")
    }
}

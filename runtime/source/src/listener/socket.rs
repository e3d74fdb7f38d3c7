//! A device's socket, plain or TLS, in two halves of one task.
//!
//! A plain socket can be waited for without a buffer. TLS cannot: there a few bytes are read into the
//! future itself, and the buffer is made once they are there.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, tcp};
use tokio_rustls::server::TlsStream;

/// Bytes that are read before there is a buffer.
const FIRST_BYTES: usize = 64;

/// A device's socket.
pub enum DeviceSocket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl DeviceSocket {
    /// Both halves, for one task.
    pub fn split(&mut self) -> (SocketReader<'_>, SocketWriter<'_>) {
        match self {
            DeviceSocket::Plain(stream) => {
                let (reader, writer) = stream.split();
                (SocketReader::Plain(reader), SocketWriter::Plain(writer))
            }
            DeviceSocket::Tls(stream) => {
                let socket = stream.get_ref().0.as_raw_fd();
                let (half, writer) = tokio::io::split(&mut **stream);
                let reader = TlsReader { half, socket, first: [0; FIRST_BYTES], read: None };
                (SocketReader::Tls(reader), SocketWriter::Tls(writer))
            }
        }
    }
}

/// The reading half.
pub enum SocketReader<'s> {
    Plain(tcp::ReadHalf<'s>),
    Tls(TlsReader<'s>),
}

/// The reading half of a TLS socket, with the bytes that a wait has read.
pub struct TlsReader<'s> {
    half: tokio::io::ReadHalf<&'s mut TlsStream<TcpStream>>,
    socket: RawFd,
    first: [u8; FIRST_BYTES],
    /// The bytes of `first` that were read; None before a wait.
    read: Option<usize>,
}

impl SocketReader<'_> {
    /// Waits until there are bytes to read, or the end.
    pub async fn readable(&mut self) -> io::Result<()> {
        match self {
            SocketReader::Plain(half) => half.readable().await,
            SocketReader::Tls(tls) => {
                if tls.read.is_none() {
                    // If it is cancelled it has read nothing.
                    tls.read = Some(tls.half.read(&mut tls.first).await?);
                }
                Ok(())
            }
        }
    }

    /// Appends the bytes that are there to `room`, which has capacity; 0 at the end. `WouldBlock` if there
    /// are none after all.
    pub fn try_read(&mut self, room: &mut Vec<u8>) -> io::Result<usize> {
        let tls = match self {
            SocketReader::Plain(half) => return half.try_read_buf(room),
            SocketReader::Tls(tls) => tls,
        };
        let Some(mut read) = tls.read.take() else { return Err(io::ErrorKind::WouldBlock.into()) };
        room.extend_from_slice(&tls.first[..read]);
        if read == 0 {
            return Ok(0);
        }
        // Further bytes that are there; the next wait finds the end and errors.
        while room.len() < room.capacity()
            && let Some(Ok(more @ 1..)) = tls.half.read_buf(room).now_or_never()
        {
            read += more;
        }
        Ok(read)
    }
}

impl AsRawFd for SocketReader<'_> {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            SocketReader::Plain(half) => half.as_ref().as_raw_fd(),
            SocketReader::Tls(tls) => tls.socket,
        }
    }
}

/// The writing half.
pub enum SocketWriter<'s> {
    Plain(tcp::WriteHalf<'s>),
    Tls(tokio::io::WriteHalf<&'s mut TlsStream<TcpStream>>),
}

impl AsyncWrite for SocketWriter<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            SocketWriter::Plain(half) => Pin::new(half).poll_write(cx, bytes),
            SocketWriter::Tls(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            SocketWriter::Plain(half) => Pin::new(half).poll_flush(cx),
            SocketWriter::Tls(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            SocketWriter::Plain(half) => Pin::new(half).poll_shutdown(cx),
            SocketWriter::Tls(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

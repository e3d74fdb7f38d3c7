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
    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        match self {
            DeviceSocket::Plain(stream) => {
                let (reader, writer) = stream.split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            DeviceSocket::Tls(stream) => {
                let socket = stream.get_ref().0.as_raw_fd();
                let (half, writer) = tokio::io::split(&mut **stream);
                let reader = TlsReader { half, socket, first: [0; FIRST_BYTES], read: None };
                (Reader::Tls(reader), Writer::Tls(writer))
            }
        }
    }
}

/// The reading half.
pub enum Reader<'s> {
    Plain(tcp::ReadHalf<'s>),
    Tls(TlsReader<'s>),
}

/// Of a TLS socket, with what was read while it was waited for.
pub struct TlsReader<'s> {
    half: tokio::io::ReadHalf<&'s mut TlsStream<TcpStream>>,
    socket: RawFd,
    first: [u8; FIRST_BYTES],
    /// How many of `first` were read; None while nothing was.
    read: Option<usize>,
}

impl Reader<'_> {
    /// Waits until there is something to read, or the end.
    pub async fn readable(&mut self) -> io::Result<()> {
        match self {
            Reader::Plain(half) => half.readable().await,
            Reader::Tls(tls) => {
                if tls.read.is_none() {
                    // Where it is cancelled it has read nothing.
                    tls.read = Some(tls.half.read(&mut tls.first).await?);
                }
                Ok(())
            }
        }
    }

    /// Reads what is there, appended to `room`, which has capacity; 0 at the end. `WouldBlock` where
    /// nothing is there after all.
    pub fn try_read(&mut self, room: &mut Vec<u8>) -> io::Result<usize> {
        let tls = match self {
            Reader::Plain(half) => return half.try_read_buf(room),
            Reader::Tls(tls) => tls,
        };
        let Some(mut read) = tls.read.take() else { return Err(io::ErrorKind::WouldBlock.into()) };
        room.extend_from_slice(&tls.first[..read]);
        if read == 0 {
            return Ok(0);
        }
        // What is there beside it; the end and errors are found by the next wait.
        while room.len() < room.capacity()
            && let Some(Ok(more @ 1..)) = tls.half.read_buf(room).now_or_never()
        {
            read += more;
        }
        Ok(read)
    }
}

impl AsRawFd for Reader<'_> {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Reader::Plain(half) => half.as_ref().as_raw_fd(),
            Reader::Tls(tls) => tls.socket,
        }
    }
}

/// The writing half.
pub enum Writer<'s> {
    Plain(tcp::WriteHalf<'s>),
    Tls(tokio::io::WriteHalf<&'s mut TlsStream<TcpStream>>),
}

impl AsyncWrite for Writer<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_write(cx, bytes),
            Writer::Tls(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_flush(cx),
            Writer::Tls(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_shutdown(cx),
            Writer::Tls(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

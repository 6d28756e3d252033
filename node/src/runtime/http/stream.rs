//! A glommio socket as hyper wants one.
//!
//! The rule: what is read lies in a buffer of this stream's own first, since hyper's may not be initialised.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use hyper::rt::ReadBufCursor;

/// Bytes of one read.
const READ_BYTES: usize = 8 << 10;

pub(super) struct Stream {
    socket: TcpStream,
    buffer: Box<[u8]>,
}

impl Stream {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, buffer: vec![0; READ_BYTES].into() }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Self { socket, buffer } = &mut *self;
        let room = buffer.len().min(into.remaining());
        let count = ready!(Pin::new(socket).poll_read(cx, &mut buffer[..room]))?;
        into.put_slice(&buffer[..count]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

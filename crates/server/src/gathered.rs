//! A connection whose small writes go out together, when it is flushed.
//!
//! h2 hands a data frame of 256 bytes and more to the socket by itself, so that each answer with a value of that size
//! is a system call and a packet of its own, also where a hundred are ready. Told that the connection cannot write
//! several pieces at once, h2 gathers frames of up to 1 KiB by copying them; what it still writes in pieces is put
//! together here.
//!
//! Invariant: bytes leave in the order they were written, and all that were written have left when a flush is over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes up to this size wait for the next one, or for the flush.
const SMALL_BYTES: usize = 1024;
/// So much waits at most.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    waiting: BytesMut,
}

impl<S> Gathered<S> {
    /// Around a connection that nothing was written to in part.
    pub fn new(stream: S) -> Self {
        Self { stream, waiting: BytesMut::new() }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_write_waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.waiting.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if bytes.len() <= SMALL_BYTES && this.waiting.len() + bytes.len() <= GATHERED_BYTES_MAX {
                this.waiting.extend_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            let slices = [IoSlice::new(&this.waiting), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, &slices))?;
            let of_waiting = written.min(this.waiting.len());
            this.waiting.advance(of_waiting);
            match (written, written - of_waiting) {
                (0, _) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                // Only what waited has gone.
                (_, 0) => {}
                (_, taken) => return Poll::Ready(Ok(taken)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_waiting(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_waiting(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use base::Prng;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_leave_in_order_and_with_the_flush() {
        // A pipe that takes little at a time, so that writes are cut everywhere.
        for room in [1, 100, 3000, 1 << 20] {
            let (near, mut far) = tokio::io::duplex(room);
            let mut random = Prng::new(room as u64);
            let pieces: Vec<Vec<u8>> = (0..200)
                .map(|_| {
                    let longest = [10, 300, SMALL_BYTES as u64 + 2, 9000][random.below(4) as usize];
                    (0..random.below(longest)).map(|_| random.next_u64() as u8).collect()
                })
                .collect();
            let expected = pieces.concat();
            let writing = tokio::spawn(async move {
                let mut near = Gathered::new(near);
                for (number, piece) in pieces.iter().enumerate() {
                    near.write_all(piece).await.expect("written");
                    assert!(near.waiting.len() <= GATHERED_BYTES_MAX);
                    if number % 17 == 0 {
                        near.flush().await.expect("flushed");
                        assert!(near.waiting.is_empty());
                    }
                }
                near.shutdown().await.expect("shut down");
            });
            let mut found = Vec::new();
            far.read_to_end(&mut found).await.expect("read");
            assert!(found == expected, "room {room}");
            writing.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn small_writes_are_one_write() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut near = Gathered::new(near);
        near.write_all(b"one").await.expect("written");
        near.write_all(b"two").await.expect("written");
        let mut found = [0; 64];
        let nothing = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut found)).await;
        assert!(nothing.is_err(), "it waits for the flush");
        near.flush().await.expect("flushed");
        assert_eq!(far.read(&mut found).await.expect("read"), 6);
    }
}

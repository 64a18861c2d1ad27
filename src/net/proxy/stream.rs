//! TCP streams as the proxy uses them: shared references, and a reset for an end unless told otherwise.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, AsRawFd},
    pin::pin,
    task::Poll,
    time::Duration,
};

use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Silence on a line before the kernel asks whether the other side is still there.
const KEEPALIVE_SECONDS: u32 = 120;

/// From here on, dropping the stream resets the connection: whatever ends it early (a refusal, a changed policy, the
/// end of the proxy) must not look like an end that the other side wanted. What a listener accepts has it from that.
pub(super) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS)?;
    Ok(())
}

/// Ends it as both sides wanted: what is still on its way gets there.
pub(super) fn finish(stream: TcpStream) {
    _ = setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 0, l_linger: 0 });
}

/// Tells the other side that nothing more comes.
pub(super) fn end_writing(stream: &TcpStream) -> io::Result<()> {
    match shutdown(stream.as_raw_fd(), Shutdown::Write) {
        // It went in the meantime.
        Err(nix::errno::Errno::ENOTCONN) => Ok(()),
        other => Ok(other?),
    }
}

/// Appends what is there to `buffer`, waiting for it. 0: the other side sends nothing more.
pub(super) async fn read_more(stream: &TcpStream, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        let length = buffer.len();
        buffer.resize(length + most, 0);
        let read = stream.try_read(&mut buffer[length..]);
        buffer.truncate(length + read.as_ref().copied().unwrap_or(0));
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says a last thing and waits a moment until it was heard: unread bytes of the client would turn the end into a reset,
/// which may overtake the words.
pub(super) async fn farewell(stream: TcpStream, words: &[u8], patience: Duration) {
    const MOST: usize = 1 << 20;
    let deadline = Instant::now() + patience;
    let said = async {
        write_all(&stream, words).await?;
        end_writing(&stream)?;
        let (mut buffer, mut drained) = (Vec::new(), 0);
        while drained < MOST {
            buffer.clear();
            match read_more(&stream, &mut buffer, 16 << 10).await? {
                0 => break,
                length => drained += length,
            }
        }
        Ok::<_, io::Error>(())
    };
    if let Ok(Ok(())) = timeout_at(deadline, said).await {
        finish(stream);
    }
}

pub(super) enum First<A, B> {
    Left(A),
    Right(B),
}

/// The one that is ready first, the left one if both are; the other is dropped.
pub(super) async fn first<A, B>(left: impl Future<Output = A>, right: impl Future<Output = B>) -> First<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = left.as_mut().poll(context) {
            return Poll::Ready(First::Left(value));
        }
        right.as_mut().poll(context).map(First::Right)
    })
    .await
}

/// Until both are done, or one failed.
pub(super) async fn both<E>(
    left: impl Future<Output = Result<(), E>>,
    right: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    let (mut left_done, mut right_done) = (false, false);
    std::future::poll_fn(|context| {
        if !left_done && let Poll::Ready(result) = left.as_mut().poll(context) {
            result?;
            left_done = true;
        }
        if !right_done && let Poll::Ready(result) = right.as_mut().poll(context) {
            result?;
            right_done = true;
        }
        if left_done && right_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

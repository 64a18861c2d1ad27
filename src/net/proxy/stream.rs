//! TCP streams as the proxy uses them: shared references, and a reset for an end unless told otherwise.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    os::fd::{AsFd, AsRawFd},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, Shutdown, send, setsockopt, shutdown, sockopt},
};
use tokio::{
    net::TcpStream,
    time::{Instant, error::Elapsed, sleep, timeout, timeout_at},
};

use crate::{net::BUFFER, sys::socket};

/// Silence on a line before the kernel asks whether the other side is still there.
const KEEPALIVE_SECONDS: u32 = 120;

/// From here on, dropping the stream resets the connection: whatever ends it early (a refusal, a changed policy, the
/// end of the proxy) must not look like an end that the other side wanted. What a listener accepts has it from that, and
/// all else that is set here.
pub(super) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    prepare_briefly(socket)?;
    keep_alive(socket)
}

/// What no connection can do without; most are over before they need more.
pub(super) fn prepare_briefly(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    Ok(())
}

/// Has the kernel ask after silence.
pub(super) fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS)?;
    Ok(())
}

/// Limits what the kernel keeps for each direction.
pub(super) fn bound(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::RcvBuf, &BUFFER)?;
    setsockopt(socket, sockopt::SndBuf, &BUFFER)?;
    Ok(())
}

/// Ends it as both sides wanted: what is still on its way gets there.
pub(super) fn finish(stream: TcpStream) {
    _ = setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 0, l_linger: 0 });
}

/// Until the other side has all that it was sent, the end among it.
///
/// What is closed before that is the kernel's for as long as the other side doesn't read, and nobody counts it: a sandbox
/// could have any number of them, each with a buffer full.
pub(super) async fn heard(stream: &TcpStream) {
    const LONGEST: Duration = Duration::from_millis(256);
    let mut pause = Duration::from_millis(1);
    while socket::unacknowledged(stream).is_ok_and(|left| left > 0) {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// Tells the other side that nothing more comes.
pub(super) fn end_writing(stream: &TcpStream) -> io::Result<()> {
    match shutdown(stream.as_raw_fd(), Shutdown::Write) {
        // It went in the meantime.
        Err(Errno::ENOTCONN) => Ok(()),
        other => Ok(other?),
    }
}

/// Bytes taken at once, through a buffer that all connections share: nothing waits while it is in use, and none has to
/// make room for what may not come.
pub(super) const SCRATCH: usize = 128 << 10;

thread_local! {
    /// Empty until the first connection: most sandboxes make none.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The buffer, for as long as nothing is waited for.
pub(super) fn with_room<T>(act: impl FnOnce(&mut [u8]) -> T) -> T {
    ROOM.with_borrow_mut(|room| {
        room.resize(SCRATCH, 0);
        act(room)
    })
}

/// Hands `take` what is there, up to `most` bytes, waiting for it. Nothing: the other side sends nothing more.
pub(super) async fn read_with<T>(stream: &TcpStream, most: usize, mut take: impl FnMut(&[u8]) -> T) -> io::Result<T> {
    loop {
        stream.readable().await?;
        let read = with_room(|room| {
            let read = stream.try_read(&mut room[..most.min(SCRATCH)])?;
            Ok(take(&room[..read]))
        });
        match read {
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Appends what is there to `buffer`, waiting for it. 0: the other side sends nothing more.
pub(super) async fn read_more(stream: &TcpStream, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    read_with(stream, most, |bytes| {
        buffer.extend_from_slice(bytes);
        bytes.len()
    })
    .await
}

/// Appends what is there to `buffer` if there is anything by now, and tells whether there was.
pub(super) fn read_now(stream: &TcpStream, buffer: &mut Vec<u8>, most: usize) -> bool {
    with_room(|room| {
        // An end, or a failure, is seen again by who waits.
        let read = stream.try_read(&mut room[..most.min(SCRATCH)]).unwrap_or(0);
        buffer.extend_from_slice(&room[..read]);
        read > 0
    })
}

pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    // A new stream can be written to before anybody was told so.
    match send(stream.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Ok(sent) => bytes = &bytes[sent..],
        Err(Errno::EAGAIN) => {}
        Err(errno) => return Err(errno.into()),
    }
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
        heard(&stream).await;
        Ok::<_, io::Error>(())
    };
    if let Ok(Ok(())) = timeout_at(deadline, said).await {
        finish(stream);
    }
}

/// As tokio's `timeout`, by a clock that stands still while this thread is not let run: on a host with too much to do it is
/// not the other side that is slow.
pub(super) async fn patient<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    const STEPS: u32 = 50;
    let mut future = pin!(future);
    // Most are done at once, and need no clock.
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        return Ok(done);
    }
    for _ in 1..STEPS {
        if let Ok(done) = timeout(limit / STEPS, future.as_mut()).await {
            return Ok(done);
        }
    }
    timeout(limit / STEPS, future).await
}

pub(super) enum First<A, B> {
    Left(A),
    Right(B),
}

/// The one that is ready first, the left one if both are; the other is dropped. Where they are pinned they stay: to move
/// them here would copy them, and that of all that is within them.
pub(super) async fn first<A, B>(
    mut left: impl Future<Output = A> + Unpin,
    mut right: impl Future<Output = B> + Unpin,
) -> First<A, B> {
    poll_fn(|context| {
        if let Poll::Ready(value) = Pin::new(&mut left).poll(context) {
            return Poll::Ready(First::Left(value));
        }
        Pin::new(&mut right).poll(context).map(First::Right)
    })
    .await
}

/// Until both are done, or one failed.
pub(super) async fn both<E>(
    mut left: impl Future<Output = Result<(), E>> + Unpin,
    mut right: impl Future<Output = Result<(), E>> + Unpin,
) -> Result<(), E> {
    let (mut left_done, mut right_done) = (false, false);
    poll_fn(|context| {
        if !left_done && let Poll::Ready(result) = Pin::new(&mut left).poll(context) {
            result?;
            left_done = true;
        }
        if !right_done && let Poll::Ready(result) = Pin::new(&mut right).poll(context) {
            result?;
            right_done = true;
        }
        if left_done && right_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

//! Bytes from one side to the other, as they are.
//!
//! The first ones are copied, which costs the least for the many connections that are over soon. What goes on is left to
//! the kernel: splice(2) moves its pages from socket to socket, through a pipe of ours.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    sys::socket::{MsgFlags, send, setsockopt, sockopt},
    unistd::pipe2,
};
use tokio::{io::Interest, net::TcpStream, sync::Notify};

use super::stream::{end_writing, read_more, with_room, write_all};
use crate::net::BUFFER;

/// Bytes of one direction after which the kernel is told how much to keep of it: until then it keeps no more than these.
const FEW: u64 = 16 << 10;
/// Bytes of one direction that are copied before a pipe is worth it.
const COPIED: u64 = 512 << 10;
/// Of a pipe, where the host lets us.
const PIPE: usize = 1 << 20;
/// What the kernel keeps for a direction that goes through a pipe, of which there are few: with less, both sides wait for
/// each other at every turn, which takes the proxy a third more.
const LARGE: usize = 512 << 10;
/// Pipes at once: they are two descriptors each, and the kernel's memory.
pub(super) const PIPES: usize = 64;

/// What relaying takes, for all connections of one proxy.
#[derive(Default)]
pub(super) struct Means {
    pipes: Cell<usize>,
}

/// What one connection's two directions tell each other.
#[derive(Default)]
pub(super) struct Flow {
    /// Bytes that the client got.
    pub answered: Cell<u64>,
    /// The first of them.
    greeting: Cell<[u8; 4]>,
    /// The client has ended, and all that it said was written to the server.
    pub sent: Cell<bool>,
    /// The server has, and all was written to the client.
    pub received: Cell<bool>,
    watch: RefCell<Option<Watch>>,
    seen: Cell<Option<bool>>,
    notify: Notify,
}

struct Watch {
    answer: Vec<u8>,
    judge: Judge,
}

/// What the server's bytes so far say; `None`: not yet.
type Judge = Box<dyn Fn(&[u8]) -> Option<bool>>;

impl Flow {
    /// Has the server's next bytes judged as they pass; to be called before what they answer is sent.
    pub fn watch(&self, judge: impl Fn(&[u8]) -> Option<bool> + 'static) {
        self.seen.set(None);
        *self.watch.borrow_mut() = Some(Watch { answer: Vec::new(), judge: Box::new(judge) });
    }

    /// What the judge said; no for a server that ends before.
    pub async fn verdict(&self) -> bool {
        loop {
            if let Some(seen) = self.seen.get() {
                return seen;
            }
            self.notify.notified().await;
        }
    }

    /// Whether the server has spoken, and as none does of HTTP/1, HTTP/2 or TLS.
    pub fn is_foreign(&self) -> bool {
        const SETTINGS: u8 = 4;
        let greeting = self.greeting.get();
        let length = self.answered.get().min(greeting.len() as u64) as usize;
        let greeting = &greeting[..length];
        let http = greeting.eq_ignore_ascii_case(&b"HTTP"[..length]);
        let tls = matches!(greeting, [0x14..=0x18] | [0x14..=0x18, 3, ..]);
        let http2 = greeting.get(3).is_none_or(|&kind| kind == SETTINGS);
        !(http || tls || http2)
    }

    fn pass(&self, bytes: &[u8]) {
        let mut greeting = self.greeting.get();
        let at = self.answered.get().min(greeting.len() as u64) as usize;
        greeting[at..].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.greeting.set(greeting);
        self.answered.set(self.answered.get() + bytes.len() as u64);
        let mut watch = self.watch.borrow_mut();
        let Some(Watch { answer, judge }) = watch.as_mut() else { return };
        answer.extend(bytes);
        if let Some(verdict) = judge(answer) {
            *watch = None;
            self.settle(verdict);
        }
    }

    fn settle(&self, verdict: bool) {
        self.seen.set(Some(verdict));
        self.notify.notify_one();
    }
}

/// From the server to the client until it ends, which the client is told.
pub(super) async fn down(server: &TcpStream, client: &TcpStream, means: &Means, flow: &Flow) -> io::Result<()> {
    pass_all(server, client, means, |bytes| flow.pass(bytes), || flow.watch.borrow().is_none()).await?;
    flow.settle(false);
    flow.received.set(true);
    end_writing(client)
}

/// From the client to the server, unread, until it ends.
pub(super) async fn up(client: &TcpStream, server: &TcpStream, means: &Means) -> io::Result<()> {
    pass(client, server, means).await?;
    end_writing(server)
}

/// The same, without telling the server.
pub(super) async fn pass(client: &TcpStream, server: &TcpStream, means: &Means) -> io::Result<()> {
    pass_all(client, server, means, |_| (), || true).await
}

/// `see` is shown the bytes until, after enough of them, `blind` says that nobody needs to.
async fn pass_all(
    from: &TcpStream,
    to: &TcpStream,
    means: &Means,
    see: impl Fn(&[u8]),
    blind: impl Fn() -> bool,
) -> io::Result<()> {
    let (mut copied, mut is_bound) = (0, false);
    loop {
        let (length, ended) = copy(from, to, &see).await?;
        if ended {
            return Ok(());
        }
        copied += length;
        if !is_bound && copied >= FEW {
            setsockopt(from, sockopt::RcvBuf, &BUFFER)?;
            setsockopt(to, sockopt::SndBuf, &BUFFER)?;
            is_bound = true;
        }
        if copied >= COPIED && blind() {
            match Pipe::new(means) {
                Some(pipe) => {
                    // With less it goes as well.
                    _ = setsockopt(from, sockopt::RcvBuf, &LARGE);
                    _ = setsockopt(to, sockopt::SndBuf, &LARGE);
                    return pipe.pass_all(from, to).await;
                }
                // Later perhaps.
                None => copied = 0,
            }
        }
    }
}

/// Passes on what is there, waiting for it: how much it was, and whether nothing more comes. Then the end has to be told
/// next, since the last bytes wait for it: they go out together, which spares both sides a packet.
async fn copy(from: &TcpStream, to: &TcpStream, see: impl Fn(&[u8])) -> io::Result<(u64, bool)> {
    let passed = loop {
        let closed = from.ready(Interest::READABLE).await?.is_read_closed();
        let passed = with_room(|room| {
            let mut length = from.try_read(room)?;
            let mut ended = Ok(length == 0);
            if closed && (1..room.len()).contains(&length) {
                match from.try_read(&mut room[length..]) {
                    Ok(0) => ended = Ok(true),
                    Ok(more) => length += more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // What came before it is passed on all the same.
                    Err(error) => ended = Err(error),
                }
            }
            let bytes = &room[..length];
            let mut flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            if matches!(ended, Ok(true)) {
                flags |= MsgFlags::from_bits_retain(libc::MSG_MORE);
            }
            let mut written = 0;
            if length > 0 {
                see(bytes);
                match to.try_io(Interest::WRITABLE, || Ok(send(to.as_raw_fd(), bytes, flags)?)) {
                    Ok(sent) => written = sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok((length as u64, ended, bytes[written..].to_vec()))
        });
        match passed {
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            other => break other?,
        }
    };
    let (length, ended, rest) = passed;
    write_all(to, &rest).await?;
    Ok((length, ended?))
}

/// What the kernel moves pages through.
struct Pipe<'a> {
    read: OwnedFd,
    write: OwnedFd,
    means: &'a Means,
}

impl<'a> Pipe<'a> {
    /// `None` when there are enough, or no descriptors left.
    fn new(means: &'a Means) -> Option<Self> {
        let taken = means.pipes.get();
        if taken >= PIPES {
            return None;
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        // A smaller one does it too.
        _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        means.pipes.set(taken + 1);
        Some(Self { read, write, means })
    }

    async fn pass_all(&self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        loop {
            // The pipe is empty here, so that waiting is for the socket alone; and full enough below.
            let fill = || Ok(splice(from, None, &self.write, None, PIPE, flags)?);
            let mut left = from.async_io(Interest::READABLE, fill).await?;
            if left == 0 {
                return Ok(());
            }
            while left > 0 {
                let drain = || Ok(splice(&self.read, None, to, None, left, flags)?);
                left -= to.async_io(Interest::WRITABLE, drain).await?;
            }
        }
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        self.means.pipes.set(self.means.pipes.get() - 1);
    }
}

/// Reads and forgets until nothing more comes.
pub(super) async fn discard(from: &TcpStream) -> io::Result<()> {
    let mut buffer = Vec::new();
    while read_more(from, &mut buffer, 16 << 10).await? > 0 {
        buffer.clear();
    }
    Ok(())
}

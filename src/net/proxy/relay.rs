//! Bytes from one side to the other, as they are.

use std::{
    cell::{Cell, RefCell},
    io,
};

use tokio::{net::TcpStream, sync::Notify};

use super::stream::{end_writing, read_more, write_all};

/// Bytes taken at once, through a buffer that all connections share: nothing waits while it is in use.
const SCRATCH: usize = 128 << 10;

pub(super) struct Scratch(RefCell<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH].into()))
    }
}

/// What one connection's two directions tell each other.
#[derive(Default)]
pub(super) struct Flow {
    /// Bytes that the client got.
    pub answered: Cell<u64>,
    watch: RefCell<Option<Watch>>,
    seen: Cell<Option<bool>>,
    notify: Notify,
}

struct Watch {
    answer: Vec<u8>,
    judge: fn(&[u8]) -> Option<bool>,
}

impl Flow {
    /// Has the server's next bytes judged as they pass; to be called before what they answer is sent.
    pub fn watch(&self, judge: fn(&[u8]) -> Option<bool>) {
        self.seen.set(None);
        *self.watch.borrow_mut() = Some(Watch { answer: Vec::new(), judge });
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

    fn pass(&self, bytes: &[u8]) {
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
pub(super) async fn down(server: &TcpStream, client: &TcpStream, scratch: &Scratch, flow: &Flow) -> io::Result<()> {
    while pass(server, client, scratch, |bytes| flow.pass(bytes)).await? {}
    flow.settle(false);
    end_writing(client)
}

/// From the client to the server, unread, until it ends.
pub(super) async fn up(client: &TcpStream, server: &TcpStream, scratch: &Scratch) -> io::Result<()> {
    while pass(client, server, scratch, |_| ()).await? {}
    end_writing(server)
}

/// Passes on what is there, waiting for it. `false`: nothing more comes.
async fn pass(from: &TcpStream, to: &TcpStream, scratch: &Scratch, see: impl FnOnce(&[u8])) -> io::Result<bool> {
    let rest = loop {
        from.readable().await?;
        let mut buffer = scratch.0.borrow_mut();
        let read = match from.try_read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let bytes = &buffer[..read];
        see(bytes);
        let written = match to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        break bytes[written..].to_vec();
    };
    write_all(to, &rest).await?;
    Ok(true)
}

/// Reads and forgets until nothing more comes.
pub(super) async fn discard(from: &TcpStream) -> io::Result<()> {
    let mut buffer = Vec::new();
    while read_more(from, &mut buffer, 16 << 10).await? > 0 {
        buffer.clear();
    }
    Ok(())
}

//! The end of a proxy whose clients have ended: what they sent last still gets to its servers.
//!
//! A program that writes and exits leaves the rest to the kernel, and so may think that it has sent what it wrote. Its
//! sockets outlive it, and some of their connections nobody has taken yet.

use std::{io, os::fd::RawFd, pin::pin, time::Duration};

use tokio::{
    net::TcpStream,
    sync::mpsc::UnboundedReceiver,
    time::{sleep, timeout},
};

use super::{
    Shared,
    relay::Flow,
    stream::{First, first, keep_alive},
};
use crate::sys::{process, socket};

/// How often is looked for what nobody tells.
const LOOK: Duration = Duration::from_millis(1);

/// The order to end when nothing is left to be sent.
pub(super) struct Drain {
    /// At most.
    pub grace: Duration,
    pub done: Done,
}

pub(super) type Done = Box<dyn FnOnce() + Send>;

/// Until the proxy is dropped, or has drained; then this is whom to tell.
pub(super) async fn until_end(
    shared: &Shared,
    sockets: &[RawFd],
    mut orders: UnboundedReceiver<Drain>,
) -> Option<Done> {
    let Drain { grace, done } = orders.recv().await?;
    shared.draining.send_replace(true);
    let drained = async {
        let open = || shared.connections.get() + shared.published.get();
        while open() > 0 || has_waiting(sockets) {
            sleep(LOOK).await;
        }
    };
    first(pin!(orders.recv()), pin!(timeout(grace, drained))).await;
    Some(done)
}

/// Whether there is a connection, a question or a datagram that was sent and not taken yet. What is taken is counted, refused, or
/// on its way before this is asked again.
fn has_waiting(sockets: &[RawFd]) -> bool {
    let ready = |fd: &RawFd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
    let mut ready: Vec<_> = sockets.iter().map(ready).collect();
    matches!(process::poll(&mut ready, Some(Duration::ZERO)), Ok(1..))
}

/// When the client is gone and the server has all that it sent: nobody would hear an answer.
///
/// A connection that lasts meanwhile comes to be one that may fall silent.
pub(super) async fn delivered(shared: &Shared, server: &TcpStream, flow: &Flow) -> io::Result<()> {
    const LASTING: Duration = Duration::from_secs(30);
    if let First::Right(()) = first(pin!(shared.gone()), pin!(sleep(LASTING))).await {
        keep_alive(server)?;
        shared.gone().await;
    }
    while !flow.sent.get() || socket::unacknowledged(server)? > 0 {
        sleep(LOOK).await;
    }
    Ok(())
}

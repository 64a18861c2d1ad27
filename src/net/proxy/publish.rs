//! Connections from the host to published ports of the sandbox.
//!
//! They are made from the gateway's namespace, where alone the sandbox is reached. What is said over them is nobody's
//! business: who may connect was decided by where the port was opened.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::spawn_local,
    time::sleep,
};

use super::{
    Place, Shared, Side, accept,
    account::Account,
    relay,
    stream::{First, both, bound, finish, first, heard, patient, prepare},
};
use crate::{
    net::{
        Protocol,
        gateway::SANDBOX,
        policy::Refusal,
        publish::{Inward, Publish},
    },
    sys::socket,
};

/// How often is looked whether all that the sandbox said is passed on, once it is gone.
const LOOK: Duration = Duration::from_millis(1);
/// Nobody waits longer for a socket, who gives one at once.
const PATIENCE: i64 = 2;

pub(super) struct Doors {
    doors: Vec<(TcpListener, Publish)>,
    sockets: OwnedFd,
}

impl Doors {
    /// Within the runtime.
    pub fn new(inward: Inward) -> io::Result<Self> {
        setsockopt(&inward.sockets, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        setsockopt(&inward.sockets, sockopt::SendTimeout, &TimeVal::seconds(PATIENCE))?;
        let doors = inward.published.listeners().map(|(door, publish)| Ok((TcpListener::from_std(door)?, publish)));
        Ok(Self { doors: doors.collect::<io::Result<_>>()?, sockets: inward.sockets })
    }

    /// Spawns what serves them.
    pub fn open(self, shared: &Rc<Shared>) {
        let sockets = Rc::new(self.sockets);
        for (door, publish) in self.doors {
            spawn_local(serve(shared.clone(), door, publish, sockets.clone()));
        }
    }
}

async fn serve(shared: Rc<Shared>, door: TcpListener, publish: Publish, sockets: Rc<OwnedFd>) {
    loop {
        let client = accept(&door).await;
        let Some(place) = Place::take(&shared, Side::Outside).filter(|_| !*shared.draining.borrow()) else {
            _ = client.set_zero_linger();
            if !*shared.draining.borrow() {
                let most = format!("more than {} connections from outside at once", shared.limits.published);
                shared.deny(Protocol::Tcp, format!("published port {}", publish.port), Refusal::new(most));
            }
            continue;
        };
        let sockets = sockets.clone();
        let cut = place.0.cut();
        spawn_local(async move {
            // Who is not let in is reset.
            let account = Account::of_published(&place.0, &client, publish);
            first(pin!(cut), pin!(carry(&account, client, publish.port, &sockets))).await;
        });
    }
}

async fn carry(account: &Account<'_>, client: TcpStream, port: u16, sockets: &OwnedFd) -> io::Result<()> {
    let shared = account.shared;
    prepare(&client)?;
    let socket = new_socket(sockets).inspect_err(|error| account.failed(&error.to_string()))?;
    let connecting = patient(shared.limits.dial, socket.connect(SocketAddr::new(SANDBOX.into(), port)));
    let connected = first(pin!(shared.gone()), pin!(connecting)).await;
    let inside = match connected {
        First::Left(()) => return Ok(()),
        First::Right(connected) => match connected.map_err(io::Error::from).and_then(|connected| connected) {
            Ok(inside) => inside,
            Err(error) => {
                account.failed(&error.to_string());
                return Err(error);
            }
        },
    };
    prepare(&inside)?;
    let ended = {
        // What goes out is what the sandbox has sent.
        let _measured = account.measure(&inside, &client);
        let up = pin!(relay::up(&client, &inside, &shared.means));
        let passed = Cell::new(false);
        let down = pin!(async {
            relay::up(&inside, &client, &shared.means).await?;
            passed.set(true);
            Ok(())
        });
        first(pin!(gone(shared, &passed, &client)), pin!(both(up, down))).await
    };
    let ended = match ended {
        First::Left(gone) => gone,
        First::Right(ended) => {
            ended?;
            finish(client);
            first(pin!(heard(&inside)), pin!(shared.gone())).await;
            finish(inside);
            return Ok(());
        }
    };
    if ended.is_ok() {
        finish(client);
    }
    ended
}

/// One of the gateway's namespace, made by who is in it.
fn new_socket(sockets: &OwnedFd) -> io::Result<TcpSocket> {
    socket::send(sockets.as_fd(), b"s", None)?;
    let (_, fd) = socket::receive(sockets.as_fd(), &mut [0; 8])?;
    let fd = fd.ok_or_else(|| io::Error::other("no socket of the gateway's"))?;
    let socket = TcpSocket::from_std_stream(fd.into());
    bound(&socket)?;
    Ok(socket)
}

/// When all in the sandbox are dead and the client has all that they said. Their kernel has the rest of it, and ends the
/// connection after that.
async fn gone(shared: &Shared, passed: &Cell<bool>, client: &TcpStream) -> io::Result<()> {
    shared.gone().await;
    while !passed.get() || socket::unacknowledged(client)? > 0 {
        sleep(LOOK).await;
    }
    Ok(())
}

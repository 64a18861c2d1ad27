//! From a name to a connection: resolve, check each address, and dial the very address that was checked.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, SockType, SockaddrStorage},
};
use tokio::{io::Interest, net::TcpStream};

use super::{
    Shared, Target,
    stream::{patient, prepare_briefly},
};
use crate::{
    net::policy::{Host, Name, Refusal, address},
    sys::socket::acknowledge_at_once,
};

/// How long the addresses of a name are believed.
const KEPT: Duration = Duration::from_secs(5);
/// The same of whether an address is the host's own.
const KEPT_OWN: Duration = Duration::from_secs(1);
/// Names whose addresses are kept, and addresses that are known to be the host's or not.
const MOST: usize = 256;
/// Addresses of one name that are tried.
const TRIES: usize = 8;

pub(super) enum DialError {
    Refused(Refusal),
    /// Nobody is to blame but the network.
    Failed(String),
}

/// An address that was checked and answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialled {
    pub address: IpAddr,
    pub own: bool,
}

#[derive(Default)]
pub(super) struct Addresses(HashMap<Name, (tokio::time::Instant, Arc<[IpAddr]>)>);

/// Which addresses are the host's own, and until when that is believed.
pub(super) type Own = (tokio::time::Instant, HashMap<IpAddr, bool>);

pub(super) async fn dial(shared: &Shared, target: &Target) -> Result<(TcpStream, Dialled), DialError> {
    let failed = |why: String| DialError::Failed(format!("{target}: {why}"));
    let limit = shared.limits.dial;
    let found = match &target.host {
        Host::Address(address) => Arc::from([*address]),
        Host::Name(name) => match patient(limit, resolve(shared, name)).await {
            Ok(found) => found.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed("its name is not resolved in time".to_owned())),
        },
    };
    let (mut refusal, mut failure) = (None, None);
    for &address in found.iter().take(TRIES) {
        let address = address::normal(address);
        let own = match shared.is_own(address) {
            Ok(own) => own,
            // No route, for one.
            Err(error) => {
                failure = failure.or(Some(error.to_string()));
                continue;
            }
        };
        if let Err(refused) = shared.policy().check_address(&target.host, target.port, address, own) {
            refusal = refusal.or(Some(refused));
            continue;
        }
        let place = (shared.outside.route)(SocketAddr::new(address, target.port));
        match patient(limit, connect(shared, place, own)).await {
            Ok(Ok(server)) => return Ok((server, Dialled { address, own })),
            Ok(Err(error)) => failure = failure.or(Some(error.to_string())),
            Err(_) => {
                failure = failure.or(Some("it doesn't answer".to_owned()));
                break;
            }
        }
    }
    match (refusal, failure) {
        (_, Some(why)) => Err(failed(why)),
        (Some(refusal), None) => Err(DialError::Refused(refusal)),
        (None, None) => Err(failed("its name has no address".to_owned())),
    }
}

/// The server hears that the connection is made with what the client says first, or once [`hurry`] is called: most clients
/// begin, and most connections are one packet shorter for it. Before long the kernel tells it by itself.
async fn connect(shared: &Shared, place: SocketAddr, own: bool) -> io::Result<TcpStream> {
    let family = if place.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = shared.outside.socket(family, SockType::Stream)?;
    prepare_briefly(&socket)?;
    // Without it one more packet goes out.
    _ = acknowledge_at_once(&socket, false);
    let place = SockaddrStorage::from(place);
    // On this host it is made by now, and asking again is less than to be woken for it.
    let made = begin(&socket, &place)? || own && begin(&socket, &place)?;
    let server = TcpStream::from_std(socket.into())?;
    if !made
        && server.ready(Interest::WRITABLE).await?.is_write_closed()
        && let Some(error) = server.take_error()?
    {
        return Err(error);
    }
    Ok(server)
}

/// Whether it is connected now; else it will be, or fail.
fn begin(socket: &OwnedFd, place: &SockaddrStorage) -> io::Result<bool> {
    match socket::connect(socket.as_raw_fd(), place) {
        Ok(()) => Ok(true),
        Err(Errno::EINPROGRESS | Errno::EALREADY | Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Tells the server that it is connected, now that its client waits for it to speak, perhaps.
pub(super) fn hurry(server: &TcpStream) {
    _ = acknowledge_at_once(server, true);
}

impl Shared {
    /// Whether packets to it stay on this host, or go to more than one; what the kernel said is believed for a moment.
    pub(super) fn is_own(&self, address: IpAddr) -> io::Result<bool> {
        let now = tokio::time::Instant::now();
        let (until, known) = &mut *self.own.borrow_mut();
        if *until <= now || known.len() >= MOST {
            known.clear();
            *until = now + KEPT_OWN;
        }
        if let Some(own) = known.get(&address) {
            return Ok(*own);
        }
        let own = (self.outside.is_own)(address)?;
        known.insert(address, own);
        Ok(own)
    }
}

pub(super) async fn resolve(shared: &Shared, name: &Name) -> io::Result<Arc<[IpAddr]>> {
    let now = tokio::time::Instant::now();
    if let Some((until, found)) = shared.addresses.borrow().0.get(name)
        && *until > now
    {
        return Ok(found.clone());
    }
    let mut found = shared.resolver.resolve(name.clone()).await?;
    // Most hosts have IPv4, and some have an IPv6 that leads nowhere.
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup();
    let found: Arc<[IpAddr]> = found.into();
    let kept = &mut shared.addresses.borrow_mut().0;
    if kept.len() >= MOST {
        kept.retain(|_, (until, _)| *until > now);
        if kept.len() >= MOST {
            kept.clear();
        }
    }
    kept.insert(name.clone(), (now + KEPT, found.clone()));
    Ok(found)
}

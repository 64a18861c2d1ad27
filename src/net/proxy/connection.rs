//! One connection from its first byte to its last.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Shared, Target,
    dial::{DialError, Dialled, dial},
    head::{self, Looks},
    inspect::{Inspector, Stop},
    relay::{self, Flow},
    stream::{First, both, farewell, finish, first, prepare, read_more},
};
use crate::net::{
    Policy, Protocol,
    policy::{Host, Refusal},
    pool::is_fake,
};

/// How long a client has to hear why it was refused.
const FAREWELL: Duration = Duration::from_secs(2);

/// A redirected connection: its destination says what it wants.
pub(super) async fn redirected(shared: &Shared, client: TcpStream) {
    if prepare(&client).is_err() {
        return;
    }
    let Ok(destination) = (shared.outside.destination)(&client) else { return };
    let target = match shared.target(destination) {
        Ok(target) => target,
        Err(refusal) => return refuse(shared, client, Protocol::Tcp, &destination.to_string(), refusal).await,
    };
    let mut policies = shared.policies.clone();
    let checked = policies.borrow_and_update().check(&target.host, target.port);
    if let Err(refusal) = checked {
        return refuse(shared, client, Protocol::Tcp, &target.to_string(), refusal).await;
    }
    carry(shared, client, target, policies, Opening::None).await;
}

impl Shared {
    /// What an address stands for.
    pub fn target(&self, destination: SocketAddr) -> Result<Target, Refusal> {
        let port = destination.port();
        if let SocketAddr::V4(v4) = destination
            && is_fake(*v4.ip())
        {
            let now = std::time::Instant::now();
            return match self.pool.borrow_mut().name(*v4.ip(), now) {
                Some(name) => Ok(Target { host: Host::Name(name.clone()), port }),
                None => Err(Refusal::new("no name stands behind this address")),
            };
        }
        Ok(Target { host: Host::Address(crate::net::policy::address::normal(destination.ip())), port })
    }
}

/// What a client is told before its bytes are passed on.
pub(super) enum Opening {
    /// It doesn't know that there is a proxy.
    None,
}

/// From a target that is allowed by the policy that `policies` has last seen, to the end of the connection.
pub(super) async fn carry(
    shared: &Shared,
    client: TcpStream,
    target: Target,
    policies: watch::Receiver<std::sync::Arc<Policy>>,
    _opening: Opening,
) {
    let dialled = Cell::new(None);
    let passing = pass(shared, client, &target, &dialled);
    match first(forbidden(policies, &target, &dialled), passing).await {
        // Both ends are reset as they are dropped.
        First::Left(refusal) => shared.deny(Protocol::Tcp, target.to_string(), refusal),
        First::Right(()) => {}
    }
}

/// Until a new policy forbids what the old one allowed.
async fn forbidden(
    mut policies: watch::Receiver<std::sync::Arc<Policy>>,
    target: &Target,
    dialled: &Cell<Option<Dialled>>,
) -> Refusal {
    loop {
        if policies.changed().await.is_err() {
            // The proxy ends, and with it this.
            return std::future::pending().await;
        }
        let policy = policies.borrow_and_update().clone();
        let address = dialled
            .get()
            .map_or(Ok(()), |Dialled { address, own }| policy.check_address(&target.host, target.port, address, own));
        if let Err(refusal) = policy.check(&target.host, target.port).and(address) {
            return refusal;
        }
    }
}

async fn pass(shared: &Shared, client: TcpStream, target: &Target, dialled: &Cell<Option<Dialled>>) {
    let server = match dial(shared, target).await {
        Ok((server, checked)) => {
            dialled.set(Some(checked));
            server
        }
        Err(DialError::Refused(refusal)) => {
            return refuse(shared, client, Protocol::Tcp, &target.to_string(), refusal).await;
        }
        Err(DialError::Failed(why)) => return fail(shared, client, &why).await,
    };
    let flow = Flow::default();
    let down = async { Ok::<_, Stop>(relay::down(&server, &client, &shared.scratch, &flow).await?) };
    let up = async {
        match &target.host {
            Host::Address(_) => Ok(relay::up(&client, &server, &shared.scratch).await?),
            Host::Name(name) => {
                let (client, server, flow) = (&client, &server, &flow);
                Inspector { shared, client, server, name, target, flow, buffer: Vec::new() }.run().await
            }
        }
    };
    match both(up, down).await {
        Ok(()) => {
            finish(client);
            finish(server);
        }
        // Dropped, both are reset: the one side as the other was.
        Err(Stop::Lost) => {}
        Err(Stop::Refused(protocol, refusal)) => {
            drop(server);
            let words = forbidden_page(&target.to_string(), &refusal);
            shared.deny(protocol, target.to_string(), refusal);
            if protocol == Protocol::Http && flow.answered.get() == 0 {
                farewell(client, &words, FAREWELL).await;
            }
        }
    }
}

/// Tells of a refusal, the client too if it speaks HTTP; any other is reset.
async fn refuse(shared: &Shared, client: TcpStream, protocol: Protocol, target: &str, refusal: Refusal) {
    let words = forbidden_page(target, &refusal);
    shared.deny(protocol, target.to_owned(), refusal);
    say_in_http(shared, client, &words).await;
}

async fn fail(shared: &Shared, client: TcpStream, why: &str) {
    say_in_http(shared, client, &page("502 Bad Gateway", &format!("fumehood: {why}"))).await;
}

/// Says `words` if the client begins a request soon.
async fn say_in_http(shared: &Shared, client: TcpStream, words: &[u8]) {
    let deadline = Instant::now() + shared.limits.refused;
    let mut buffer = Vec::new();
    loop {
        match head::looks(&buffer) {
            Looks::Http => return farewell(client, words, FAREWELL).await,
            Looks::Other => return,
            Looks::Open => match timeout_at(deadline, read_more(&client, &mut buffer, 1024)).await {
                Ok(Ok(1..)) => {}
                _ => return,
            },
        }
    }
}

pub(super) fn forbidden_page(target: &str, refusal: &Refusal) -> Vec<u8> {
    let mut text = format!("fumehood: denied: {target} ({})", refusal.rule);
    if let Some(hint) = &refusal.hint {
        text.push_str("; hint: ");
        text.push_str(hint);
    }
    page("403 Forbidden", &text)
}

pub(super) fn page(status: &str, text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
        text.len() + 1
    )
    .into_bytes()
}

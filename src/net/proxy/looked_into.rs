//! A connection to a name whose requests are looked into: TLS ends here, and a second one begins.
//!
//! The server has to show a certificate for the name that one of the host's authorities signed; the client is shown one
//! of the sandbox's own. A server that doesn't is asked nothing, and what it would be is told in its place.

use tokio::time::timeout_at;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    exchange::Exchange,
    inspect::{Inspector, Stop},
    io::Io,
    stream::{bound, patient},
};
use crate::net::{
    Protocol,
    policy::{Name, Refusal},
};

/// `inspector`: the client's side, with what was read of it.
pub(super) async fn converse(mut inspector: Inspector<'_>, name: &Name) -> Result<(), Stop> {
    bound(inspector.server)?;
    match inspector.classify().await? {
        Protocol::Tls => {
            inspector.account.speaks(Protocol::Https);
            inspector.hello().await?;
            within_tls(inspector, name).await
        }
        Protocol::Http => {
            inspector.account.speaks(Protocol::Http);
            let Inspector { shared, client, server, target, flow, buffer, .. } = inspector;
            let ends = (Io::new(client, buffer), Io::new(server, Vec::new()));
            Exchange::new(shared, (target, name), flow, false, ends).run().await
        }
        _ if inspector.buffer.is_empty() => Ok(()),
        other => Err(Stop::Refused(other, Refusal::new("rules about its requests hold, and it speaks no HTTP"))),
    }
}

async fn within_tls(inspector: Inspector<'_>, name: &Name) -> Result<(), Stop> {
    let Inspector { shared, client, server, target, flow, account, buffer } = inspector;
    let Some(authority) = shared.authority.as_ref() else {
        let why = "rules about requests were added, and the sandbox trusts no proxy: it was started without any";
        return Err(Stop::Refused(Protocol::Tls, Refusal::new(why)));
    };
    let inward =
        authority.inward(name).map_err(|error| Stop::Refused(Protocol::Tls, Refusal::new(error.to_string())))?;
    let outward = TlsConnector::from(authority.outward());
    let secured = match rustls::pki_types::ServerName::try_from(name.to_string()) {
        Ok(whom) => match patient(shared.limits.dial, outward.connect(whom, Io::new(server, Vec::new()))).await {
            Ok(Ok(secured)) => Ok(secured),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err("it doesn't begin TLS in time".to_owned()),
        },
        Err(error) => Err(error.to_string()),
    };
    let until = tokio::time::Instant::now() + shared.limits.head;
    let accepting = TlsAcceptor::from(inward).accept(Io::new(client, buffer));
    let Ok(Ok(client)) = timeout_at(until, accepting).await else { return Err(Stop::Lost) };
    match secured {
        Ok(server) => Exchange::new(shared, (target, name), flow, true, (client, server)).run().await,
        Err(why) => {
            shared.deny_open(account, Protocol::Tls, target, Refusal::new(&*why));
            Exchange::new(shared, (target, name), flow, true, (client, Io::new(server, Vec::new()))).fail(&why).await
        }
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => format!("its certificate is not to be trusted: {why}"),
        Some(other) => format!("TLS fails: {other}"),
        None => error.to_string(),
    }
}

//! Questions of DNS, over UDP and TCP: all are answered here, and none leaves the host.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    Shared, accept,
    stream::{read_more, write_all},
};
use crate::net::{Contact, Protocol, dns, policy::Host};

/// Connections for them, and how long one may be silent.
pub(super) const CONNECTIONS: usize = 64;
const SILENCE: Duration = Duration::from_secs(5);

impl Shared {
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let now = std::time::Instant::now();
        let (answer, refused) = dns::answer(question, &self.policy(), &mut self.pool.borrow_mut(), now)?;
        if let Some((name, refusal)) = refused {
            self.deny(Protocol::Dns, name, refusal);
        } else if let Some(log) = &self.log
            && let Some(name) = dns::asked(question)
        {
            let host = Host::Name(name);
            let rule = self.policy().allowed_by(&host, None);
            log(Contact::new(Protocol::Dns, host.to_string(), rule));
        }
        Some(answer)
    }
}

pub(super) async fn answer_udp(shared: Rc<Shared>, socket: UdpSocket) {
    let mut buffer = [0; 1500];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                if let Some(answer) = shared.answer(&buffer[..length]) {
                    // One that is lost is asked for again.
                    _ = socket.send_to(&answer, client).await;
                }
            }
            // An answer that nobody wanted comes back as an error.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

pub(super) async fn answer_tcp(shared: Rc<Shared>, listener: TcpListener) {
    let open = Rc::new(Cell::new(0));
    loop {
        let client = accept(&listener).await;
        if open.get() >= CONNECTIONS {
            _ = client.set_zero_linger();
            continue;
        }
        open.set(open.get() + 1);
        let (shared, open) = (shared.clone(), open.clone());
        spawn_local(async move {
            _ = answer_stream(&shared, &client).await;
            open.set(open.get() - 1);
        });
    }
}

/// Questions one after another, each behind its length.
async fn answer_stream(shared: &Shared, client: &TcpStream) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        while let Some(length) = buffer.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)))
            && let Some(question) = buffer.get(2..2 + length)
        {
            let Some(answer) = shared.answer(question) else { return Ok(()) };
            let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
            timeout(SILENCE, write_all(client, &framed)).await??;
            buffer.drain(..2 + length);
        }
        if timeout(SILENCE, read_more(client, &mut buffer, 1500)).await?? == 0 {
            return Ok(());
        }
    }
}

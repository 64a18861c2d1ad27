//! The threads that wait for the host's resolver, which blocks.
//!
//! One is there from the beginning. The others are made when they are needed, and done without if the sandbox has used up
//! what its user may have: that a thread cannot be made must never end the proxy.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use nix::sys::signal::SigSet;
use tokio::sync::oneshot;

use super::outside::Resolve;
use crate::net::policy::Name;

/// Threads at most.
const MOST: usize = 16;

/// Dropped, its threads end when the resolver lets them; nobody waits for that.
pub(super) struct Resolver {
    questions: Sender<Question>,
    crew: Arc<Crew>,
}

struct Question {
    name: Name,
    answer: oneshot::Sender<io::Result<Vec<IpAddr>>>,
}

struct Crew {
    resolve: Resolve,
    questions: Mutex<Receiver<Question>>,
    threads: AtomicUsize,
    /// Questions that were asked and not answered.
    open: AtomicUsize,
}

impl Resolver {
    pub fn start(resolve: Resolve) -> io::Result<Self> {
        let (questions, receiver) = channel();
        let crew = Arc::new(Crew {
            resolve,
            questions: Mutex::new(receiver),
            threads: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        hire(&crew)?;
        Ok(Self { questions, crew })
    }

    pub async fn resolve(&self, name: Name) -> io::Result<Vec<IpAddr>> {
        let gone = || io::Error::other("the resolver is gone");
        let (answer, answered) = oneshot::channel();
        let open = self.crew.open.fetch_add(1, Ordering::Relaxed) + 1;
        let threads = self.crew.threads.load(Ordering::Relaxed);
        if open > threads && threads < MOST {
            // Else it waits for one of those that there are.
            _ = hire(&self.crew);
        }
        self.questions.send(Question { name, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn hire(crew: &Arc<Crew>) -> io::Result<()> {
    let own = crew.clone();
    thread::Builder::new().name("fumehood-names".to_owned()).spawn(move || own.work())?;
    crew.threads.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

impl Crew {
    fn work(&self) {
        // Signals are for the thread that waits for them.
        _ = SigSet::all().thread_block();
        loop {
            let question = self.questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Question { name, answer }) = question else { return };
            // One that was given up needs no answer.
            if !answer.is_closed() {
                _ = answer.send((self.resolve)(&name));
            }
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, task::Context};

    use super::*;

    #[test]
    fn names_that_take_long_do_not_hold_up_others() {
        // Answers come when three were asked at once, and so only if each has a thread of its own.
        let barrier = Arc::new(Barrier::new(4));
        let theirs = barrier.clone();
        let resolver = Resolver::start(Arc::new(move |_: &Name| {
            theirs.wait();
            Ok(Vec::new())
        }))
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut asked: Vec<_> =
            ["a.org", "b.org", "c.org"].map(|name| Box::pin(resolver.resolve(name.parse().unwrap()))).into();
        let mut context = Context::from_waker(std::task::Waker::noop());
        for asking in &mut asked {
            assert!(asking.as_mut().poll(&mut context).is_pending());
        }
        barrier.wait();
        for asking in asked {
            assert!(runtime.block_on(asking).unwrap().is_empty());
        }
    }

    #[test]
    fn there_are_never_more_threads_than_may_be() {
        let resolver = Resolver::start(Arc::new(|_: &Name| Err(io::ErrorKind::NotFound.into()))).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..3 * MOST {
            assert!(runtime.block_on(resolver.resolve("a.org".parse().unwrap())).is_err());
        }
        assert!(resolver.crew.threads.load(Ordering::Relaxed) <= MOST);
    }
}

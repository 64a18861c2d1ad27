//! What all connections of one proxy have in common.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tokio::sync::watch;

use super::{
    Limits, Log, Target,
    account::Account,
    dial::{Addresses, Own},
    outside::Outside,
    relay::Means,
    resolver::Resolver,
};
use crate::net::{Authority, Contact, Denied, Policy, Protocol, policy::Refusal, pool::Pool};

/// What all tasks of the one thread share.
pub(super) struct Shared {
    pub policies: watch::Receiver<Arc<Policy>>,
    pub cuts: watch::Receiver<()>,
    /// What the sandbox was started with; later policies have none.
    pub authority: Option<Arc<Authority>>,
    pub pool: RefCell<Pool>,
    pub addresses: RefCell<Addresses>,
    pub own: RefCell<Own>,
    pub resolver: Resolver,
    pub denied: Box<dyn Fn(Denied) + Send>,
    pub log: Option<Log>,
    pub outside: Outside,
    pub means: Means,
    pub limits: Limits,
    pub connections: Cell<usize>,
    /// The same of those from outside.
    pub published: Cell<usize>,
    /// All clients are gone.
    pub draining: watch::Sender<bool>,
}

impl Shared {
    /// Of this moment.
    pub fn policy(&self) -> Arc<Policy> {
        self.policies.borrow().clone()
    }

    /// When all connections that there are now are to end.
    pub fn cut(&self) -> impl Future<Output = ()> + use<> {
        let mut cuts = self.cuts.clone();
        cuts.mark_unchanged();
        async move {
            if cuts.changed().await.is_err() {
                // The proxy ends, and with it this.
                std::future::pending().await
            }
        }
    }

    /// When all clients are gone.
    pub async fn gone(&self) {
        let mut draining = self.draining.subscribe();
        if draining.wait_for(|draining| *draining).await.is_err() {
            std::future::pending().await
        }
    }

    fn places(&self, side: Side) -> (&Cell<usize>, usize) {
        match side {
            Side::Inside => (&self.connections, self.limits.connections),
            Side::Outside => (&self.published, self.limits.published),
        }
    }

    pub fn deny(&self, protocol: Protocol, target: String, refusal: Refusal) {
        let denied = Denied { protocol, target, rule: refusal.rule, hint: refusal.hint };
        if let Some(log) = &self.log {
            log(Contact::denied(&denied));
        }
        (self.denied)(denied);
    }

    /// Of a connection that has an account of its own.
    pub fn deny_open(&self, account: &Account<'_>, protocol: Protocol, target: &Target, refusal: Refusal) {
        account.refused(protocol, &refusal);
        (self.denied)(Denied { protocol, target: target.to_string(), rule: refusal.rule, hint: refusal.hint });
    }
}

/// Who began a connection: whoever is outside takes no places of the sandbox's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Inside,
    Outside,
}

/// One of the connections there may be.
pub(super) struct Place(pub Rc<Shared>, Side);

impl Place {
    pub fn take(shared: &Rc<Shared>, side: Side) -> Option<Self> {
        let (taken, most) = shared.places(side);
        (taken.get() < most).then(|| {
            taken.set(taken.get() + 1);
            Self(shared.clone(), side)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.0.places(self.1).0;
        taken.set(taken.get() - 1);
    }
}

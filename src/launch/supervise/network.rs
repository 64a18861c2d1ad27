//! What the supervisor has to do with the sandbox's network: what was refused is told, and the policy changes.

use super::{
    super::{
        control::{Answer, Request},
        network,
        observer::Observer,
    },
    Supervisor,
};
use crate::{
    net::{Contact, Denied, Policy},
    report::{DenialKind, Reason},
};

impl Supervisor<'_> {
    /// Connections and names that the gateway let through or refused.
    pub(super) fn hear_of_egress(&mut self, observer: &mut dyn Observer) {
        let Some(egress) = &self.running.egress else { return };
        egress.awake();
        let refused = egress.refused();
        let contacts: Vec<_> = egress.contacts().collect();
        for contact in contacts {
            self.begin(observer);
            self.tell_of(&contact, observer);
        }
        for Denied { target, rule, hint, .. } in refused {
            self.begin(observer);
            if let Some(denial) = self.denials.record(DenialKind::Network, &target, &rule, || hint)
                && observer.denied(denial).is_err()
            {
                self.kill(Reason::Cancelled(libc::SIGPIPE as u8));
            }
        }
    }

    /// After the setup, all of whose processes are dead: the network becomes the program's.
    pub(super) fn lock_network(&mut self, observer: &mut dyn Observer) {
        let (Some(policy), Some(egress)) = (self.policy_to_come.take(), &self.running.egress) else { return };
        egress.set_policy(Policy::clone(&policy));
        egress.cut();
        self.tell_policy(&policy, observer);
    }

    /// Those who ask for the network's policy, or change it.
    pub(super) fn hear_callers(&mut self, observer: &mut dyn Observer) {
        let Some(mut door) = self.running.control_door.take() else { return };
        door.serve(|request| match request {
            Request::Show => self.running.egress.as_ref().map_or_else(
                || Answer::Error("its network is gone".to_owned()),
                |egress| Answer::Policy(Box::new(Policy::clone(&egress.policy()))),
            ),
            Request::Set(policy) => self.set_policy(policy, observer),
        });
        self.running.control_door = Some(door);
    }

    fn set_policy(&mut self, policy: Box<Policy>, observer: &mut dyn Observer) -> Answer {
        let Some(egress) = &self.running.egress else { return Answer::Error("its network is gone".to_owned()) };
        egress.set_policy(Policy::clone(&policy));
        if let Some(to_come) = &mut self.policy_to_come {
            to_come.clone_from(&policy);
        }
        self.controls.network = network(policy.mode());
        // The policy holds, whatever is written of it.
        _ = self.running.entry.as_mut().map(|entry| entry.set_network(policy.mode().as_str()));
        // Before the start there is nobody to tell yet; and it is not the program that was heard of.
        if self.started.is_some() || self.step > 0 {
            self.tell_policy(&policy, observer);
        } else {
            self.policy_untold = Some(policy);
        }
        Answer::Done
    }

    pub(super) fn tell_policy(&mut self, policy: &Policy, observer: &mut dyn Observer) {
        if observer.policy(policy).is_err() {
            self.kill(Reason::Cancelled(libc::SIGPIPE as u8));
        }
    }

    pub(super) fn tell_of(&mut self, contact: &Contact, observer: &mut dyn Observer) {
        if observer.contact(contact).is_err() {
            self.kill(Reason::Cancelled(libc::SIGPIPE as u8));
        }
    }
}

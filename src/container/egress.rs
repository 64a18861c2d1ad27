//! What a container's network lets through: what the runtime is told of it, and the policy of one that runs.

use std::fs::File;

use super::failed;
use crate::{
    Error, Result,
    error::Hint,
    launch::control::{Answer, Request},
    net::Policy,
    plan::container::process::Process,
    spec::container::{self as spec, egress::Open},
    state::root::{ContainerId, StateRoot},
    sys::socket::{self, Reach},
};

/// What a runtime is told of the networks of all its containers, by whoever calls it.
#[derive(Debug, Default)]
pub struct Egress {
    /// In place of an annotation.
    pub open: Option<Open>,
    /// One whose network is filtered, and to which nobody gives one, has the host's to reach out.
    pub from_host: bool,
    /// Where each connection is a line.
    pub log: Option<File>,
}

/// A socket of another network namespace that is handed in is a way out by that: refused are all but those whose one peer
/// is another socket of this host, and with CAP_NET_ADMIN, by which any leads to its namespace's devices (SIOCGSKNS), these,
/// too. `passed`: how many descriptors beside the three streams, which a terminal replaces.
pub(super) fn check_passed(process: &Process, own_users: bool, passed: u32) -> Result<()> {
    const NET_ADMIN: u64 = 1 << 12;
    let any = !own_users && process.capabilities.all() & NET_ADMIN != 0;
    let first = if process.terminal { 3 } else { 0 };
    for number in first..3 + passed as i32 {
        let refused = match socket::reach(number) {
            Reach::Nobody => false,
            Reach::Peer => any,
            Reach::Anybody => true,
        };
        if refused {
            let why = format!(
                "io.fumehood.egress: descriptor {number} is a socket of another network, and a way out of the filtered one"
            );
            return Err(failed(why).with_hint("give the container a pipe, a file or a terminal"));
        }
    }
    Ok(())
}

impl Egress {
    pub(super) fn hold_for(&self, controls: &mut spec::Controls) -> Result<()> {
        if let Some(open) = &self.open {
            if controls.egress.is_some() {
                let why =
                    "annotations.io.fumehood.egress: the runtime was given --egress, and no container has another";
                return Err(failed(why).with_hint("leave the annotation out, or use a runtime without the option"));
            }
            controls.egress = Some(spec::Egress { open: open.clone(), from_host: false });
        }
        if let Some(egress) = &mut controls.egress {
            // Annotations may come from an image, and open nothing of the host's.
            if self.from_host && self.open.is_none() && !egress.open.publish.is_empty() {
                let why =
                    "io.fumehood.egress: publish=PORT would open a port of the host's, whose network the container has";
                return Err(failed(why).with_hint("give the policy to the runtime, with --egress"));
            }
            egress.from_host = self.from_host;
        }
        Ok(())
    }
}

/// What is in force now.
pub fn policy(root: &StateRoot, id: &ContainerId) -> Result<Box<Policy>> {
    match ask(root, id, &Request::Show)? {
        Answer::Policy(policy) => Ok(policy),
        other => Err(unfit(id, &other)),
    }
}

/// Puts another in its place, at once; open connections that it forbids are cut.
pub fn set_policy(root: &StateRoot, id: &ContainerId, policy: Policy) -> Result<()> {
    match ask(root, id, &Request::Set(Box::new(policy)))? {
        Answer::Done => Ok(()),
        other => Err(unfit(id, &other)),
    }
}

fn ask(root: &StateRoot, id: &ContainerId, request: &Request) -> Result<Answer> {
    let dir = root.open(id).map_err(Hint::into_error)?;
    if dir.load().map_err(Hint::into_error)?.egress.is_none() {
        return Err(failed(format!("container {id}: its network is not filtered"))
            .with_hint("it would have to be made with the annotation io.fumehood.egress, or --egress"));
    }
    let bad = |error: serde_json::Error| failed(format!("container {id}: {error}"));
    let answer = dir.say(&serde_json::to_vec(request).map_err(bad)?).map_err(Hint::into_error)?;
    serde_json::from_slice(&answer).map_err(bad)
}

fn unfit(id: &ContainerId, answer: &Answer) -> Error {
    let why = match answer {
        Answer::Error(why) => why,
        Answer::Policy(_) | Answer::Done => "its proxy answers something else",
    };
    failed(format!("container {id}: {why}"))
}

//! Which of a plan is the sandbox, and which is what is done in it: a sandbox that was made for one plan serves for
//! another if all but the latter is the same.
//!
//! Both are whole plans, made from whole requests, so that a sandbox made ahead cannot be other than the one that would
//! have been made. What may differ is named here, and nothing else.

use super::{
    Plan,
    gvisor::Gvisor,
    ids::{Ids, IdsKind, Map},
    setup::SetupOp,
};
use crate::request::Limits;

/// Where files can still be placed when the rest of the tree is read-only: in memory of the sandbox's own.
const LATE: [&str; 2] = ["sandbox", "tmp"];

impl Plan {
    /// Whether the sandbox can be made before what it is for is known.
    #[must_use]
    pub fn can_be_made_ahead(&self) -> bool {
        // What leads there could be somebody else's, or be hidden before anything is placed.
        let leads = |op: &SetupOp| match op {
            SetupOp::Bind { path, .. } | SetupOp::Mask { path, .. } | SetupOp::ReadOnly { path } => {
                LATE.iter().any(|late| is_within(path.full().to_bytes(), late.as_bytes()))
            }
            _ => false,
        };
        // An authority's certificate is in the tree.
        let looked_into = self.egress.as_ref().is_some_and(|policy| policy.inspects_any());
        !self.terminal
            && !self.keeps
            && (self.gvisor.is_none() || (self.steps.len() <= 1 && self.starter_place().is_some() && self.has_room()))
            && self.setup_egress.is_none()
            && self.publish.is_empty()
            && self.on_disk().is_none()
            && !looked_into
            && !self.setup.iter().any(leads)
    }

    /// On gVisor's kernel what waits is a program as any, which is there until it is used: in the directory that a sandbox's
    /// programs are put in.
    #[must_use]
    pub fn starter_place(&self) -> Option<&'static str> {
        let runs =
            |op: &SetupOp| matches!(op, SetupOp::Tmpfs { path, executable: true, .. } if path.shown() == "/sandbox");
        self.setup.iter().any(runs).then_some("/sandbox")
    }

    /// What has waited keeps a few pages and files of its own until the program runs: a sandbox in which they could be missed
    /// is made when it is wanted.
    fn has_room(&self) -> bool {
        const LEAST: u64 = 1 << 20;
        const OWN: u64 = 64 << 10;
        const PAGE: u64 = 4096;
        let placed = self.placed_late().map(|(_, op)| match op {
            SetupOp::File { content, .. } => PAGE + (content.0.len() as u64).next_multiple_of(PAGE),
            _ => PAGE,
        });
        let least = LEAST.max(OWN + placed.sum::<u64>());
        self.setup.iter().all(|op| match op {
            SetupOp::Tmpfs { path, bytes, .. } => {
                !["/sandbox", "/tmp"].contains(&path.shown().as_str()) || *bytes >= least
            }
            _ => true,
        })
    }

    /// The operations that place what is done in the sandbox, with their places in the plan.
    pub fn placed_late(&self) -> impl Iterator<Item = (usize, &SetupOp)> {
        let after = self.setup.iter().position(|op| *op == SetupOp::Cgroup).unwrap_or(self.setup.len());
        self.setup.iter().enumerate().skip(after).filter(|(_, op)| is_late(op))
    }

    /// Whether the sandbox that is made for this plan is the one that `other` wants.
    #[must_use]
    pub fn makes_the_same(&self, other: &Self) -> bool {
        // By name, so that what is added to a plan has to be thought of here.
        let Self {
            id: _,
            namespaces,
            ids,
            rootfs,
            image,
            setup: _,
            identity,
            capabilities,
            groups,
            rlimits,
            landlock,
            seccomp,
            no_setuid,
            limits,
            terminal,
            gvisor,
            steps: _,
            workdir_by: _,
            network: _,
            egress,
            setup_egress,
            publish,
            fetches,
            keeps,
            left_out: _,
        } = self;
        let same_gateway = match (egress, &other.egress) {
            (None, None) => self.network == other.network,
            (Some(one), Some(other)) => {
                one.passes_udp() == other.passes_udp() && !one.inspects_any() && !other.inspects_any()
            }
            _ => false,
        };
        same_gateway
            && *rootfs == other.rootfs
            && *image == other.image
            && *identity == other.identity
            && *capabilities == other.capabilities
            && *terminal == other.terminal
            && *fetches == other.fetches
            && *keeps == other.keeps
            && *publish == other.publish
            && *groups == other.groups
            && same_limits(limits, &other.limits)
            && *rlimits == other.rlimits
            && *namespaces == other.namespaces
            && same_ids(ids, &other.ids)
            && *setup_egress == other.setup_egress
            && same_kernel(gvisor.as_deref(), other.gvisor.as_deref())
            && *landlock == other.landlock
            && *seccomp == other.seccomp
            && *no_setuid == other.no_setuid
            && same_operations(self.made_early(), other.made_early())
            && self.can_be_made_ahead()
            && other.can_be_made_ahead()
    }

    fn made_early(&self) -> impl Iterator<Item = &SetupOp> {
        let after = self.setup.iter().position(|op| *op == SetupOp::Cgroup).unwrap_or(self.setup.len());
        self.setup.iter().enumerate().filter(move |(index, op)| *index <= after || !is_late(op)).map(|(_, op)| op)
    }

    /// Leaves what is done in it out: the sandbox alone.
    pub fn without_late(&mut self) {
        let late: Vec<usize> = self.placed_late().map(|(index, _)| index).collect();
        let mut index = 0;
        self.setup.retain(|_| {
            index += 1;
            late.binary_search(&(index - 1)).is_err()
        });
    }
}

fn same_kernel(one: Option<&Gvisor>, other: Option<&Gvisor>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.is_same(other),
        _ => false,
    }
}

fn same_operations<'a>(
    mut one: impl Iterator<Item = &'a SetupOp>,
    mut other: impl Iterator<Item = &'a SetupOp>,
) -> bool {
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(SetupOp::Enclose(one)), Some(SetupOp::Enclose(other))) if one.is_same(other) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

fn is_late(op: &SetupOp) -> bool {
    match op {
        SetupOp::File { path, .. } | SetupOp::Dir { path, .. } => {
            let path = path.full().to_bytes();
            LATE.iter().any(|late| is_within(path, late.as_bytes()) && path.len() > late.len())
        }
        _ => false,
    }
}

fn is_within(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What of the limits is watched from outside can be told when it is used.
fn same_limits(one: &Limits, other: &Limits) -> bool {
    let Limits { memory, cpus, pids, timeout: _, cpu_time, output: _, sandbox, tmp, nofile, asked: _ } = one;
    *memory == other.memory
        && *cpus == other.cpus
        && *pids == other.pids
        && cpu_time.is_some() == other.cpu_time.is_some()
        && *sandbox == other.sandbox
        && *tmp == other.tmp
        && *nofile == other.nofile
}

/// The ids of the host that nobody else has are each sandbox's own.
fn same_ids(one: &Ids, other: &Ids) -> bool {
    let Ids { kind, users, groups, setup } = one;
    let same = |one: &[Map], other: &[Map]| {
        one.len() == other.len()
            && one.iter().zip(other).all(|(one, other)| {
                (one.inside, one.count) == (other.inside, other.count)
                    && (*kind == IdsKind::Range || one.outside == other.outside)
            })
    };
    *kind == other.kind && *setup == other.setup && same(users, &other.users) && same(groups, &other.groups)
}

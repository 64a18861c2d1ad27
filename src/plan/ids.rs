//! Which host ids stand behind the ids inside.

use serde::Serialize;

use crate::{
    host::Host,
    request::{SandboxId, User},
};

/// How many ids a sandbox made by root has.
const COUNT: u32 = 65_536;
/// Where root's sandboxes get their ids, in blocks of 65,536: of the range systemd keeps for containers, the part
/// above what login.defs(5) gives out as subordinate ids. None belongs to a person or a service (systemd's
/// docs/UIDS-GIDS.md; SUB_UID_MAX is 600,100,000).
const FIRST: u32 = 9157 * COUNT;
const BLOCKS: u32 = (1_879_048_191 - FIRST) / COUNT;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ids {
    pub kind: IdsKind,
    pub users: Map,
    pub groups: Map,
    /// Who builds the sandbox, inside. With a single id that is the program's own.
    #[serde(skip)]
    pub setup: (u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdsKind {
    /// 65,536 ids that belong to nobody.
    Range,
    /// One id: the caller's own.
    Single,
}

/// One line of /proc/PID/uid_map (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Map {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

impl Ids {
    /// Root gives each sandbox a block of its own, so that two sandboxes are two strangers. An ordinary user
    /// has one id to give, which needs no setuid helper.
    pub fn choose(id: &SandboxId, user: User, host: &Host) -> Result<Self, IdError> {
        let range = |outside| {
            let map = Map { inside: 0, outside, count: COUNT };
            Self { kind: IdsKind::Range, users: map, groups: map, setup: (0, 0) }
        };
        if host.privileged && host.initial_user_namespace {
            return Ok(range(FIRST + hash(id.as_str()) % BLOCKS * COUNT));
        }
        if host.privileged && host.ids.has(0, 0) && host.ids.has(COUNT - 1, COUNT - 1) {
            // Root of a container: only the ids that the container has can be given on.
            if user.uid == 0 {
                return Err(IdError);
            }
            return Ok(range(0));
        }
        Ok(Self {
            kind: IdsKind::Single,
            users: Map { inside: user.uid, outside: host.uid, count: 1 },
            groups: Map { inside: user.gid, outside: host.gid, count: 1 },
            setup: (user.uid, user.gid),
        })
    }
}

/// FNV-1a: spreads ids over the blocks; two in one block lose nothing but distance.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("root inside would be root of the container that fumehood runs in")]
pub struct IdError;

impl crate::error::Hint for IdError {
    fn hint(&self) -> Option<String> {
        Some("leave --user out, or run fumehood as an ordinary user of the container".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_lies_in_the_range_that_belongs_to_nobody() {
        for n in 0..1000 {
            let outside = FIRST + hash(&n.to_string()) % BLOCKS * COUNT;
            assert!(outside >= FIRST && outside + (COUNT - 1) <= 1_879_048_191);
        }
    }
}

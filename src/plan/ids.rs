//! Which host ids stand behind the ids inside.

use serde::Serialize;

use crate::{
    host::{Host, IdRange},
    request::{SandboxId, User, user::LAST_ID},
};

/// How many ids a sandbox made by root has.
const COUNT: u32 = 65_536;
/// Where root's sandboxes get their ids, in blocks of 65,536: of the range systemd keeps for containers, the part
/// above what login.defs(5) gives out as subordinate ids. None belongs to a person or a service (systemd's
/// docs/UIDS-GIDS.md; SUB_UID_MAX is 600,100,000).
const FIRST: u32 = 9157 * COUNT;
const BLOCKS: u32 = (1_879_048_191 - FIRST) / COUNT;

/// How many subordinate ids a sandbox of an ordinary user has, if that many are granted: what `useradd` grants.
const SUBORDINATES: u32 = 65_536;
/// What gVisor's kernel becomes (`nobody`).
const NOBODY: u32 = 65_534;
/// The kernel takes no more lines than this (user_namespaces(7)).
const MOST_LINES: usize = 340;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ids {
    pub kind: IdsKind,
    /// The lines of uid_map, none of which overlaps another.
    pub users: Vec<Map>,
    pub groups: Vec<Map>,
    /// Who builds the sandbox, inside. With a single id that is the program's own.
    #[serde(skip)]
    pub setup: (u32, u32),
}

/// Whose the ids outside are, and so who may write the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdsKind {
    /// Given out by root; if they are ours to choose, 65,536 that belong to nobody.
    Range,
    /// One id: the caller's own.
    Single,
    /// The caller's own and what /etc/subuid and /etc/subgid grant them, mapped by newuidmap and newgidmap.
    Subuid,
}

/// Which ids have to mean somebody inside, beside the program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Program,
    /// The program gives files to anybody.
    All,
    /// gVisor's kernel is nobody, and root sets it up.
    Gvisor,
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
    /// has one id to give, which needs no setuid helper, and where that will not do, subordinate ones.
    pub fn choose(id: &SandboxId, user: User, needs: Needs, host: &Host) -> Result<Self, IdError> {
        let range = |outside| {
            let lines = vec![Map { inside: 0, outside, count: COUNT }];
            Self { kind: IdsKind::Range, users: lines.clone(), groups: lines, setup: (0, 0) }
        };
        if host.privileged && host.initial_user_namespace {
            return Ok(range(block(id)));
        }
        if host.privileged && host.ids.has(0, 0) && host.ids.has(COUNT - 1, COUNT - 1) {
            // Root of a container: only the ids that the container has can be given on.
            if user.uid == 0 {
                return Err(IdError::ContainersRoot);
            }
            return Ok(range(0));
        }
        // A root of a container with fewer ids than gVisor's own nobody needs has them granted, or is told.
        if wants_granted(user, needs, host) || needs == Needs::Gvisor {
            return match needs {
                Needs::Program => Self::granted(user, host),
                Needs::All => Self::granted(User { uid: LAST_ID, gid: LAST_ID, ..user }, host),
                Needs::Gvisor => Self::for_gvisor(user, host),
            };
        }
        let own = |inside, outside| vec![Map { inside, outside, count: 1 }];
        Ok(Self {
            kind: IdsKind::Single,
            users: own(user.uid, host.uid),
            groups: own(user.gid, host.gid),
            setup: (user.uid, user.gid),
        })
    }

    /// Those of another sandbox with the same plan: a block that belongs to nobody is each one's own.
    pub fn choose_anew(&mut self, id: &SandboxId) {
        let own = |lines: &[Map]| matches!(lines, [Map { inside: 0, outside: FIRST.., count: COUNT }]);
        if self.kind == IdsKind::Range && own(&self.users) && own(&self.groups) {
            let lines = vec![Map { inside: 0, outside: block(id), count: COUNT }];
            (self.users, self.groups) = (lines.clone(), lines);
        }
    }

    /// The program is the caller where it is that without gVisor. Its kernel becomes nobody, and root sets both up.
    fn for_gvisor(user: User, host: &Host) -> Result<Self, IdError> {
        let stranger = wants_granted(user, Needs::Program, host);
        if stranger {
            Self::granted(user, host)?;
        }
        let maps = [(user.uid, host.uid, &host.granted.uids), (user.gid, host.gid, &host.granted.gids)].map(
            |(id, own, granted)| {
                let mut lines = subordinate(own, granted);
                // One of them may become three.
                lines.truncate(MOST_LINES - 2);
                with_own_at(if stranger { 0 } else { id }, lines)
            },
        );
        for (kind, lines, file) in [("user", &maps[0], "/etc/subuid"), ("group", &maps[1], "/etc/subgid")] {
            let enough = [0, NOBODY].iter().all(|id| outside(lines, *id).is_some());
            if !enough {
                let count = lines.iter().map(|line| line.count).sum::<u32>() - 1;
                return Err(IdError::Gvisor { kind, caller: host.uid, file, count, fix: host.granted.fix() });
            }
        }
        let [users, groups] = maps;
        Ok(Self { kind: IdsKind::Subuid, users, groups, setup: (0, 0) })
    }

    /// Root inside is the caller, as with podman, and builds the sandbox: what the caller can open, it can.
    fn granted(user: User, host: &Host) -> Result<Self, IdError> {
        let users = subordinate(host.uid, &host.granted.uids);
        let groups = subordinate(host.gid, &host.granted.gids);
        for (kind, lines, id, file) in
            [("user", &users, user.uid, "/etc/subuid"), ("group", &groups, user.gid, "/etc/subgid")]
        {
            if outside(lines, id).is_none() {
                let count = lines.iter().skip(1).map(|line| line.count).sum();
                return Err(IdError::NotGranted { kind, id, caller: host.uid, file, count, fix: host.granted.fix() });
            }
        }
        Ok(Self { kind: IdsKind::Subuid, users, groups, setup: (0, 0) })
    }
}

impl IdsKind {
    /// What lines are that somebody else chose, for a caller with these ids.
    #[must_use]
    pub fn of_lines(users: &[Map], groups: &[Map], (uid, gid): (u32, u32), privileged: bool) -> Self {
        let own = |lines: &[Map], id| matches!(lines, [Map { outside, count: 1, .. }] if *outside == id);
        if privileged {
            Self::Range
        } else if own(users, uid) && own(groups, gid) {
            Self::Single
        } else {
            Self::Subuid
        }
    }
}

/// Whether this sandbox needs ids that its caller has by grant only. What one id can be (root, the default user,
/// the caller) it is: that works without helpers, and the files of the program are the caller's.
#[must_use]
pub fn wants_granted(user: User, needs: Needs, host: &Host) -> bool {
    let default = User::default();
    let one_will_do = [0, default.uid, host.uid].contains(&user.uid) && [0, default.gid, host.gid].contains(&user.gid);
    !host.privileged && (needs != Needs::Program || user.asked && !one_will_do)
}

/// 0 is the caller, and 1 and on are the ids granted, in the order of the file. The kernel takes no id twice, and
/// whatever the file says, the host's root is not given to a program.
#[must_use]
pub fn subordinate(own: u32, granted: &[IdRange]) -> Vec<Map> {
    let one = |first| IdRange { first, count: 1 };
    let mut lines = vec![Map { inside: 0, outside: own, count: 1 }];
    let mut taken = vec![one(0), one(own)];
    let mut next = 1;
    for range in granted {
        let mut pieces = vec![*range];
        for other in &taken {
            pieces = pieces.into_iter().flat_map(|piece| piece.without(*other)).collect();
        }
        for IdRange { first, count } in pieces {
            let count = count.min(SUBORDINATES + 1 - next);
            if count == 0 || lines.len() == MOST_LINES {
                return lines;
            }
            lines.push(Map { inside: next, outside: first, count });
            taken.push(IdRange { first, count });
            next += count;
        }
    }
    lines
}

/// The same with the first line's id at `id`, and what was there at 0.
fn with_own_at(id: u32, lines: Vec<Map>) -> Vec<Map> {
    let mut moved = Vec::with_capacity(lines.len() + 2);
    for line in lines {
        let Map { inside, outside, count } = line;
        match id.checked_sub(inside).filter(|offset| *offset < count) {
            _ if inside == 0 => moved.push(Map { inside: id, ..line }),
            None => moved.push(line),
            Some(before) => {
                let pieces = [
                    Map { count: before, ..line },
                    Map { inside: 0, outside: outside + before, count: 1 },
                    Map { inside: id + 1, outside: outside + before + 1, count: count - before - 1 },
                ];
                moved.extend(pieces.into_iter().filter(|piece| piece.count > 0));
            }
        }
    }
    moved
}

/// The id that `inside` is outside; `None` if it is nobody.
#[must_use]
pub fn outside(lines: &[Map], inside: u32) -> Option<u32> {
    lines.iter().find_map(|line| {
        let offset = inside.checked_sub(line.inside).filter(|offset| *offset < line.count)?;
        line.outside.checked_add(offset)
    })
}

/// Where the block of a sandbox of root's begins.
fn block(id: &SandboxId) -> u32 {
    FIRST + hash(id.as_str()) % BLOCKS * COUNT
}

/// FNV-1a: spreads ids over the blocks; two in one block lose nothing but distance.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("root inside would be root of the container that fumehood runs in")]
    ContainersRoot,
    #[error("gVisor needs {kind} ids 0 to {NOBODY} inside: {file} grants {} to uid {caller}", amount(*count))]
    Gvisor { kind: &'static str, caller: u32, file: &'static str, count: u32, fix: String },
    #[error("{kind} {id} cannot be given: {file} grants {} to uid {caller}", amount(*count))]
    NotGranted { kind: &'static str, id: u32, caller: u32, file: &'static str, count: u32, fix: String },
}

fn amount(count: u32) -> String {
    match count {
        0 => "no id".to_owned(),
        1 => "only one id".to_owned(),
        _ => format!("only {count} ids"),
    }
}

impl crate::error::Hint for IdError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ContainersRoot => "leave --user out, or run fumehood as an ordinary user of the container".to_owned(),
            Self::Gvisor { fix, .. } => format!("{fix}; or run without --isolation gvisor"),
            Self::NotGranted { fix, .. } => format!("{fix}; or leave --user out"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Granted, IdSpace};

    fn ordinary(subuid: &str, subgid: &str) -> Host {
        let ids = |id| vec![IdRange { first: id, count: 1 }];
        Host {
            uid: 1001,
            gid: 1002,
            privileged: false,
            initial_user_namespace: true,
            ids: IdSpace { uids: ids(1001), gids: ids(1002) },
            granted: Granted::parse(subuid, subgid, Some("alice"), 1001),
            landlock_abi: 0,
            kernel: crate::host::KernelVersion::default(),
        }
    }

    fn choose(user: &str, host: &Host) -> Result<Ids, IdError> {
        Ids::choose(&SandboxId::parse("x").unwrap(), User::parse(user).unwrap(), Needs::Program, host)
    }

    fn lines(lines: &[(u32, u32, u32)]) -> Vec<Map> {
        lines.iter().map(|&(inside, outside, count)| Map { inside, outside, count }).collect()
    }

    #[test]
    fn every_block_lies_in_the_range_that_belongs_to_nobody() {
        for n in 0..1000 {
            let outside = FIRST + hash(&n.to_string()) % BLOCKS * COUNT;
            assert!(outside >= FIRST && outside + (COUNT - 1) <= 1_879_048_191);
        }
    }

    #[test]
    fn who_takes_anothers_plan_gets_a_block_of_its_own() {
        let [one, other] = ["one", "other"].map(|id| SandboxId::parse(id).unwrap());
        let choose = |id, host: &Host| Ids::choose(id, User::default(), Needs::Program, host).unwrap();
        let root = Host { uid: 0, gid: 0, privileged: true, ..ordinary("", "") };
        let mut ids = choose(&one, &root);
        ids.choose_anew(&other);
        assert_eq!(ids, choose(&other, &root));
        assert_ne!(ids, choose(&one, &root));
        // What there is one of stays.
        let all = vec![IdRange { first: 0, count: u32::MAX }];
        let ids = IdSpace { uids: all.clone(), gids: all };
        let contained = Host { initial_user_namespace: false, ids, ..root };
        for host in [contained, ordinary("", "")] {
            let mut ids = choose(&one, &host);
            ids.choose_anew(&other);
            assert_eq!(ids, choose(&one, &host));
        }
    }

    #[test]
    fn an_ordinary_user_needs_a_grant_only_for_strangers() {
        let host = ordinary("", "");
        for user in ["0", "1000", "root", "sandbox", "1001:1002", "0:1002", "1000:0"] {
            assert_eq!(choose(user, &host).unwrap().kind, IdsKind::Single, "{user}");
        }
        let id = SandboxId::parse("x").unwrap();
        assert_eq!(Ids::choose(&id, User::default(), Needs::Program, &host).unwrap().kind, IdsKind::Single);
        // As a bundle has it, nobody having asked.
        let bundled = User { uid: 7, gid: 8, asked: false };
        assert_eq!(Ids::choose(&id, bundled, Needs::Program, &host).unwrap().users, lines(&[(7, 1001, 1)]));
        for (user, kind) in [("7", "user"), ("1001:7", "user"), ("0:7", "group"), ("1002:0", "user")] {
            match choose(user, &host) {
                Err(IdError::NotGranted { kind: found, count: 0, .. }) => assert_eq!(found, kind),
                other => panic!("{user}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_stranger_gets_what_is_granted() {
        let host = ordinary("alice:100000:65536", "1001:200000:10\nalice:300000:65536");
        let ids = choose("7:12", &host).unwrap();
        assert_eq!((ids.kind, ids.setup), (IdsKind::Subuid, (0, 0)));
        assert_eq!(ids.users, lines(&[(0, 1001, 1), (1, 100_000, 65_536)]));
        assert_eq!(ids.groups, lines(&[(0, 1002, 1), (1, 200_000, 10), (11, 300_000, 65_526)]));
        assert_eq!((outside(&ids.users, 7), outside(&ids.groups, 12)), (Some(100_006), Some(300_001)));
        assert_eq!((outside(&ids.users, 0), outside(&ids.users, 65_537)), (Some(1001), None));
    }

    #[test]
    fn behind_gvisor_the_program_is_the_caller_and_root_is_nobody() {
        let choose = |user: &str, subuid: &str| {
            let id = SandboxId::parse("x").unwrap();
            Ids::choose(&id, User::parse(user).unwrap(), Needs::Gvisor, &ordinary(subuid, "alice:300000:65536"))
        };
        let ids = choose("1000", "alice:100000:65536").unwrap();
        assert_eq!((ids.kind, ids.setup), (IdsKind::Subuid, (0, 0)));
        assert_eq!(ids.users, lines(&[(1000, 1001, 1), (1, 100_000, 999), (0, 100_999, 1), (1001, 101_000, 64_536)]));
        let ids = choose("0", "alice:100000:65536").unwrap();
        assert_eq!(ids.users, lines(&[(0, 1001, 1), (1, 100_000, 65_536)]));
        let moved = with_own_at(1, lines(&[(0, 1001, 1), (1, 100_000, 65_536)]));
        assert_eq!(moved, lines(&[(1, 1001, 1), (0, 100_000, 1), (2, 100_001, 65_535)]));
        let told = choose("1000", "").unwrap_err().to_string();
        assert_eq!(told, "gVisor needs user ids 0 to 65534 inside: /etc/subuid grants no id to uid 1001");
        assert!(choose("1000", "alice:100000:1000").is_err());
        // Whoever is a stranger without it is one with it.
        assert_eq!(choose("7", "alice:100000:65536").unwrap().users, lines(&[(0, 1001, 1), (1, 100_000, 65_536)]));
    }

    #[test]
    fn who_gives_files_to_anybody_needs_all() {
        let root = User { uid: 0, gid: 0, asked: true };
        let choose = |host: &Host| Ids::choose(&SandboxId::parse("x").unwrap(), root, Needs::All, host);
        let ids = choose(&ordinary("alice:100000:65536", "alice:300000:65536")).unwrap();
        assert_eq!((ids.kind, ids.setup), (IdsKind::Subuid, (0, 0)));
        let error = choose(&ordinary("alice:100000:1000", "alice:300000:65536")).unwrap_err();
        assert_eq!(error.to_string(), "user 65534 cannot be given: /etc/subuid grants only 1000 ids to uid 1001");
    }

    #[test]
    fn too_few_are_told() {
        let host = ordinary("alice:100000:10", "alice:100000:65536");
        assert!(choose("10:11", &host).is_ok());
        let error = choose("11", &host).unwrap_err();
        assert_eq!(error.to_string(), "user 11 cannot be given: /etc/subuid grants only 10 ids to uid 1001");
        let error = choose("5", &ordinary("alice:100000:9", "bob:100000:9")).unwrap_err();
        assert_eq!(error.to_string(), "group 5 cannot be given: /etc/subgid grants no id to uid 1001");
    }

    #[test]
    fn no_grant_gives_roots_id_or_an_id_twice() {
        let granted = |text: &str| subordinate(1001, &ordinary(text, "").granted.uids);
        for (text, wanted) in [
            ("alice:0:3", &[(1, 1, 2)][..]),
            ("alice:0:1", &[]),
            ("alice:1001:1", &[]),
            ("alice:999:5", &[(1, 999, 2), (3, 1002, 2)]),
            ("alice:0:4294967295", &[(1, 1, 1000), (1001, 1002, 64_536)]),
            ("alice:5:5\nalice:5:5", &[(1, 5, 5)]),
            ("alice:5:5\nalice:7:5", &[(1, 5, 5), (6, 10, 2)]),
            ("alice:7:2\nalice:5:9", &[(1, 7, 2), (3, 5, 2), (5, 9, 5)]),
            ("alice:4294967294:1", &[(1, 4_294_967_294, 1)]),
            ("alice:1:0\nalice:4294967295:1\n\u{0}:::\nalice:2:x\nalice:9:1", &[(1, 9, 1)]),
        ] {
            let mut all = vec![(0, 1001, 1)];
            all.extend(wanted);
            assert_eq!(granted(text), lines(&all), "{text:?}");
        }
    }

    #[test]
    fn a_long_file_makes_no_longer_map_than_the_kernel_takes() {
        let text: String = (0..2000).map(|n| format!("alice:{}:1\n", 100_000 + 2 * n)).collect();
        assert_eq!(subordinate(1001, &ordinary(&text, "").granted.uids).len(), MOST_LINES);
    }

    #[test]
    fn who_writes_lines_follows_from_the_lines() {
        let kind = |users: &[(u32, u32, u32)], groups: &[(u32, u32, u32)], privileged| {
            IdsKind::of_lines(&lines(users), &lines(groups), (1001, 1002), privileged)
        };
        let (own, own_group) = ([(0, 1001, 1)], [(0, 1002, 1)]);
        assert_eq!(kind(&own, &own_group, false), IdsKind::Single);
        assert_eq!(kind(&own, &[(0, 1001, 1)], false), IdsKind::Subuid);
        assert_eq!(kind(&[(0, 1001, 2)], &own_group, false), IdsKind::Subuid);
        assert_eq!(kind(&[(0, 1001, 1), (1, 100_000, 5)], &own_group, false), IdsKind::Subuid);
        assert_eq!(kind(&own, &[], false), IdsKind::Subuid);
        assert_eq!(kind(&own, &own_group, true), IdsKind::Range);
        assert_eq!(kind(&[(0, 0, 1), (1, 100_000, 5)], &[(0, 0, 1)], true), IdsKind::Range);
    }
}

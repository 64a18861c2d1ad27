//! Which user and group ids this process may give to a sandbox: the map of its own user namespace, and the
//! ranges that /etc/subuid and /etc/subgid grant it.

use serde::Serialize;

/// `count` ids starting at `first`, as seen in the user namespace at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IdRange {
    pub first: u32,
    pub count: u32,
}

impl IdRange {
    const ALL: Self = Self { first: 0, count: u32::MAX };

    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        id.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// What of it lies before `other`, and what behind.
    pub(crate) fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let (end, other_end) = (self.first + self.count, other.first + other.count);
        let before = (self.first, end.min(other.first));
        let behind = (self.first.max(other_end), end);
        [before, behind]
            .into_iter()
            .filter(|(first, end)| first < end)
            .map(|(first, end)| Self { first, count: end - first })
    }
}

/// The ids that exist in this user namespace: a child's map can name no other (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdSpace {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

impl IdSpace {
    pub(super) fn all() -> Self {
        Self { uids: vec![IdRange::ALL], gids: vec![IdRange::ALL] }
    }

    #[must_use]
    pub fn has(&self, uid: u32, gid: u32) -> bool {
        self.uids.iter().any(|range| range.contains(uid)) && self.gids.iter().any(|range| range.contains(gid))
    }
}

/// The subordinate ids of one user: what newuidmap and newgidmap map for them (subuid(5), subgid(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// In the file's order. They may overlap, and name ids that are no one's to grant.
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
    /// The first id above all that is granted to anybody.
    free: u32,
}

/// Where shadow begins to give out subordinate ids (login.defs(5), SUB_UID_MIN).
const FIRST_SUBORDINATE: u32 = 100_000;
/// How many it gives to each.
const SUBORDINATES: u32 = 65_536;

impl Granted {
    /// Reads both files; one that is not there grants nothing.
    #[must_use]
    pub fn read(uid: u32) -> Self {
        let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
        let text = |file| String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
        Self::parse(&text("/etc/subuid"), &text("/etc/subgid"), name.as_deref(), uid)
    }

    pub(crate) fn parse(subuid: &str, subgid: &str, name: Option<&str>, uid: u32) -> Self {
        Self {
            uids: parse_subids(subuid, name, uid),
            gids: parse_subids(subgid, name, uid),
            free: first_free(subuid).max(first_free(subgid)),
        }
    }

    /// The line that makes root grant some, which nobody else has.
    #[must_use]
    pub fn fix(&self) -> String {
        let free = format!("{}-{}", self.free, self.free.saturating_add(SUBORDINATES - 1));
        format!("sudo usermod --add-subuids {free} --add-subgids {free} \"$USER\"")
    }
}

fn first_free(text: &str) -> u32 {
    let ends = text.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        range(fields.next()?, fields.next()?).map(|granted| granted.first + granted.count)
    });
    ends.max().unwrap_or(0).max(FIRST_SUBORDINATE)
}

/// /proc/PID/uid_map: lines of `inside outside count`. A line that is anything else maps nothing.
pub(super) fn parse_id_map(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (first, _outside, count) = (words.next()?, words.next()?, words.next()?);
            range(first, count).filter(|_| words.next().is_none())
        })
        .collect()
}

/// subuid(5): lines of `name-or-uid:first:count`. Lines of others, comments and nonsense are passed over, as
/// shadow does.
fn parse_subids(text: &str, name: Option<&str>, uid: u32) -> Vec<IdRange> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let (first, count) = (fields.next()?, fields.next()?);
            let mine = !owner.is_empty() && (Some(owner) == name || owner == number);
            range(first, count).filter(|_| mine && fields.next().is_none())
        })
        .collect()
}

/// A range that does not run over the last id. 4294967295 is no id: it is -1, "unchanged", in setuid(2).
fn range(first: &str, count: &str) -> Option<IdRange> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (first, count) = (number(first)?, number(count)?);
    (count > 0 && first.checked_add(count).is_some()).then_some(IdRange { first, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_the_initial_and_of_a_rootless_namespace() {
        let initial = parse_id_map("         0          0 4294967295\n");
        assert_eq!(initial, [IdRange::ALL]);
        let rootless = parse_id_map("0 1000 1\n1 100000 65536\n");
        assert!(rootless[0].contains(0) && !rootless[0].contains(1));
        assert!(rootless[1].contains(65536) && !rootless[1].contains(65537));
        let space = IdSpace { uids: rootless, gids: vec![IdRange { first: 0, count: 1 }] };
        assert!(space.has(65534, 0) && !space.has(65534, 65534));
    }

    #[test]
    fn hostile_maps_map_nothing() {
        for text in ["", "0 0", "0 0 0", "a b c", "-1 0 1", "+1 0 1", "4294967295 0 1", "1 1 4294967295", "0 0 1 1"] {
            assert_eq!(parse_id_map(text), [], "{text}");
        }
    }

    #[test]
    fn subids_by_name_and_by_number() {
        let text = "alice:100000:65536\n1001:165536:65536\nbob:231072:65536\nalice:300000:10\n";
        assert_eq!(
            parse_subids(text, Some("alice"), 1000),
            [IdRange { first: 100_000, count: 65536 }, IdRange { first: 300_000, count: 10 }]
        );
        assert_eq!(parse_subids(text, Some("carol"), 1001), [IdRange { first: 165_536, count: 65536 }]);
        assert_eq!(parse_subids(text, None, 7), []);
    }

    #[test]
    fn a_range_less_another_is_what_lies_on_both_sides() {
        let range = |first, count| IdRange { first, count };
        let without = |a: IdRange, b| a.without(b).collect::<Vec<_>>();
        assert_eq!(without(range(10, 10), range(12, 3)), [range(10, 2), range(15, 5)]);
        assert_eq!(without(range(10, 10), range(0, 12)), [range(12, 8)]);
        assert_eq!(without(range(10, 10), range(19, 100)), [range(10, 9)]);
        assert_eq!(without(range(10, 10), range(10, 10)), []);
        for beside in [range(0, 10), range(20, 5), range(u32::MAX - 1, 1)] {
            assert_eq!(without(range(10, 10), beside), [range(10, 10)]);
        }
    }

    #[test]
    fn what_is_proposed_is_nobodys_yet() {
        let fix = |uids: &str, gids: &str| Granted::parse(uids, gids, None, 1000).fix();
        assert!(fix("", "").contains("--add-subuids 100000-165535 --add-subgids 100000-165535"));
        assert!(fix("a:100000:65536\n", "b:165536:10\n7:1:1\nx").contains(" 165546-231081 "));
        assert!(fix("a:4294967000:1", "").contains(" 4294967001-4294967295 "));
    }

    #[test]
    fn hostile_subids_grant_nothing() {
        for text in [
            ":100000:65536",
            "alice:100000",
            "alice:100000:0",
            "alice:-1:5",
            "alice:0x10:5",
            "alice:4294967295:1",
            "alice:4294967290:10",
            "alice:1:99999999999999",
            "alice:1:2:3",
            " alice:1:2",
            "#alice:1:2",
            "alice:1: 2",
            "\u{0}alice:1:2",
        ] {
            assert_eq!(parse_subids(text, Some("alice"), 1000), [], "{text:?}");
        }
        assert_eq!(parse_subids(":1:2", Some(""), 1000), []);
    }
}

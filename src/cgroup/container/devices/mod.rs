//! Which devices a container may open and make: the spec's rules, in order, and after them those that every
//! container has.
//!
//! Nothing is allowed that no rule allows. v1 keeps a list of exceptions ([`list`]), v2 runs a program ([`filter`]).

mod filter;
mod list;

use oci_spec::runtime as oci;

use super::ContainerCgroupError;

pub(super) use filter::attach;
pub(super) use list::write;

/// One rule, for one kind of device or for any device at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    /// `None` is any device, number and access.
    device: Option<Device>,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    kind: Kind,
    /// `None` is any.
    major: Option<u32>,
    minor: Option<u32>,
}

/// The kernel's numbers (`BPF_DEVCG_DEV_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block = 1,
    Char = 2,
}

/// A set, in the kernel's numbers (`BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Access(u8);

impl Access {
    const MKNOD: Self = Self(1);
    const READ: Self = Self(2);
    const WRITE: Self = Self(4);
    const ALL: Self = Self(7);

    fn parse(text: &str) -> Option<Self> {
        text.bytes().try_fold(Self(0), |set, byte| {
            let one = match byte {
                b'r' => Self::READ,
                b'w' => Self::WRITE,
                b'm' => Self::MKNOD,
                _ => return None,
            };
            Some(Self(set.0 | one.0))
        })
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters = [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")];
        letters.into_iter().filter(|(one, _)| self.and(*one) == *one).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// What every container may use, as every runtime has it: making any node, the devices without side effects, the
/// terminals of its own devpts, and `/dev/net/tun`, whose use takes a capability over the network namespace anyway.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, Access); 11] = [
    (Kind::Char, None, None, Access::MKNOD),
    (Kind::Block, None, None, Access::MKNOD),
    (Kind::Char, Some(1), Some(3), Access::ALL),
    (Kind::Char, Some(1), Some(8), Access::ALL),
    (Kind::Char, Some(1), Some(7), Access::ALL),
    (Kind::Char, Some(5), Some(0), Access::ALL),
    (Kind::Char, Some(1), Some(5), Access::ALL),
    (Kind::Char, Some(1), Some(9), Access::ALL),
    (Kind::Char, Some(136), None, Access::ALL),
    (Kind::Char, Some(5), Some(2), Access::ALL),
    (Kind::Char, Some(10), Some(200), Access::ALL),
];

/// The spec's rules and the defaults. The first is always that nothing is allowed.
pub(super) fn rules(
    asked: &[oci::LinuxDeviceCgroup],
    own: &[oci::LinuxDeviceCgroup],
) -> Result<Vec<Rule>, ContainerCgroupError> {
    let mut rules = vec![Rule { allow: false, device: None, access: Access::ALL }];
    for (index, rule) in asked.iter().chain(own).enumerate() {
        read(rule, &mut rules)
            .map_err(|why| ContainerCgroupError::value(format!("resources.devices[{index}]"), why))?;
    }
    rules.extend(DEFAULTS.map(|(kind, major, minor, access)| Rule {
        allow: true,
        device: Some(Device { kind, major, minor }),
        access,
    }));
    // What comes before a rule for everything is of no consequence.
    let last = rules.iter().rposition(|rule| rule.device.is_none()).unwrap_or(0);
    Ok(rules.split_off(last))
}

fn read(rule: &oci::LinuxDeviceCgroup, rules: &mut Vec<Rule>) -> Result<(), &'static str> {
    let text = rule.access().as_deref().unwrap_or_default();
    let access = Access::parse(text).ok_or("access is made of the letters r, w and m")?;
    if access.is_empty() {
        return Err("device access field cannot be empty");
    }
    let number = |number: Option<i64>| match number {
        None | Some(..0) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| "no such device number"),
    };
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    let kinds: &[Kind] = match rule.typ().unwrap_or(oci::LinuxDeviceType::A) {
        oci::LinuxDeviceType::A if major.is_none() && minor.is_none() && access == Access::ALL => {
            rules.push(Rule { allow: rule.allow(), device: None, access });
            return Ok(());
        }
        // v1 would take this for everything.
        oci::LinuxDeviceType::A => &[Kind::Block, Kind::Char],
        oci::LinuxDeviceType::B => &[Kind::Block],
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => &[Kind::Char],
        oci::LinuxDeviceType::P => return Err("a FIFO is no device to a cgroup"),
    };
    rules.extend(kinds.iter().map(|kind| Rule {
        allow: rule.allow(),
        device: Some(Device { kind: *kind, major, minor }),
        access,
    }));
    Ok(())
}

/// The rules in systemd's words, paths and letters; `None` is no restriction at all. What systemd has no word for, a
/// minor number of any major one, is left out, and so are exceptions.
pub(super) fn for_systemd(rules: &[Rule], systemd: u32) -> Option<Vec<(String, String)>> {
    let open = rules.first().is_some_and(|rule| rule.allow && rule.device.is_none());
    if open {
        // It has no bans either: then rather everything is banned for the moment until the rules are in force.
        return rules.iter().any(|rule| !rule.allow).then(Vec::new);
    }
    let word = |rule: &Rule| {
        let device = rule.device?;
        let kind = if device.kind == Kind::Block { "block" } else { "char" };
        let path = match (device.major, device.minor) {
            (None, None) => format!("{kind}-*"),
            (Some(major), None) if systemd >= 240 => format!("{kind}-{major}"),
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            _ => return None,
        };
        Some((path, rule.access.to_string()))
    };
    Some(rules.iter().filter(|rule| rule.allow).filter_map(word).collect())
}

/// Within a user namespace neither tree lets anybody set rules; the devices there are those that the outer container
/// was given.
pub(super) fn in_user_namespace() -> bool {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let map: Vec<&str> = text.split_ascii_whitespace().collect();
    !text.is_empty() && map != ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parse(json: &str) -> Vec<Rule> {
        let asked: Vec<oci::LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        rules(&asked, &[]).unwrap()
    }

    fn refused(json: &str) -> String {
        let asked: Vec<oci::LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        rules(&asked, &[]).unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_allowed_first() {
        for json in
            ["[]", r#"[{"allow": false, "access": "rwm"}]"#, r#"[{"allow": false, "type": "a", "access": "mrw"}]"#]
        {
            let rules = parse(json);
            assert_eq!(rules[0], Rule { allow: false, device: None, access: Access::ALL });
            assert_eq!(rules.len(), 1 + DEFAULTS.len());
        }
        let all = parse(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]"#);
        assert_eq!(all[0], Rule { allow: true, device: None, access: Access::ALL });
    }

    #[test]
    fn any_kind_with_a_number_is_both_kinds_and_no_more() {
        let rules = parse(r#"[{"allow": true, "type": "a", "major": 8, "access": "r"}]"#);
        assert!(rules.iter().skip(1).all(|rule| rule.device.is_some()));
        assert_eq!(rules[1].device, Some(Device { kind: Kind::Block, major: Some(8), minor: None }));
        assert_eq!(rules[2].device, Some(Device { kind: Kind::Char, major: Some(8), minor: None }));
    }

    #[test]
    fn in_systemds_words() {
        let words = |json: &str| for_systemd(&parse(json), 252);
        assert_eq!(words(r#"[{"allow": true, "access": "rwm"}]"#), None);
        let banned = r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"}]"#;
        assert_eq!(words(banned), Some(vec![]));
        let list = words(
            r#"[{"allow": true, "type": "b", "major": 8, "access": "r"},
            {"allow": true, "type": "c", "minor": 3, "access": "r"}]"#,
        )
        .unwrap();
        let pair = |path: &str, access: &str| (path.to_owned(), access.to_owned());
        assert_eq!(list[..3], [pair("block-8", "r"), pair("char-*", "m"), pair("block-*", "m")]);
        assert!(list.contains(&pair("/dev/char/1:3", "rwm")) && list.contains(&pair("char-136", "rwm")));
        assert_eq!(list.len(), 1 + DEFAULTS.len());
    }

    #[test]
    fn numbers_and_letters() {
        let rules = parse(r#"[{"allow": true, "type": "c", "major": -1, "minor": 3, "access": "rw"}]"#);
        assert_eq!(rules[1].device, Some(Device { kind: Kind::Char, major: None, minor: Some(3) }));
        assert_eq!(rules[1].access.to_string(), "rw");
        assert!(refused(r#"[{"allow": true, "type": "c"}]"#).contains("resources.devices[0]: device access"));
        assert!(refused(r#"[{"allow": true, "type": "c", "access": "rx"}]"#).contains("letters"));
        assert!(refused(r#"[{"allow": true, "type": "p", "access": "r"}]"#).contains("FIFO"));
        assert!(refused(r#"[{"allow": true, "type": "c", "major": 4294967296, "access": "r"}]"#).contains("number"));
    }
}

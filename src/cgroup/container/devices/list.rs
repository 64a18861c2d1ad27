//! v1: an allowance or a ban on everything, and exceptions (kernel, `admin-guide/cgroup-v1/devices.rst`).
//!
//! The kernel forgets what it cannot keep: taking a device out of an exception for many changes nothing, and it says
//! nothing. So the rules are carried out here first, where that is an error, and the list is read back after.

use std::collections::BTreeMap;

use super::{
    super::{
        super::group::Group,
        ContainerCgroupError,
        slots::{put, read},
    },
    Access, Device, Kind, Rule,
};

/// The state of a device cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Policy {
    /// What is not excepted is allowed.
    open: bool,
    exceptions: BTreeMap<Device, Access>,
}

/// Changes the group's list to what the rules say, taking no right away in between that is there before and after:
/// what runs in the group must not stumble over an update. Only an open group, as all are at first, is closed first.
pub(crate) fn write(group: &Group, rules: &[Rule]) -> Result<(), ContainerCgroupError> {
    let malformed = |text: &str| ContainerCgroupError::value(group.path("devices.list").display().to_string(), text);
    let now = read(group, "devices.list")?;
    let now = Policy::parse(&now).ok_or_else(|| malformed(&now))?;
    let wanted = Policy::of(rules).map_err(|why| ContainerCgroupError::value("resources.devices", why))?;
    for (file, line) in now.lines_to(&wanted) {
        put(group, file, line)?;
    }
    let text = read(group, "devices.list")?;
    let got = Policy::parse(&text).ok_or_else(|| malformed(&text))?;
    // An open group's exceptions are not listed.
    if got.open == wanted.open && (wanted.open || got == wanted) {
        return Ok(());
    }
    Err(malformed("the list does not say what was written to it"))
}

impl Policy {
    fn of(rules: &[Rule]) -> Result<Self, String> {
        let mut policy = Self::default();
        for rule in rules {
            match rule.device {
                None => policy = Self { open: rule.allow, exceptions: BTreeMap::new() },
                Some(device) if rule.allow != policy.open => {
                    let access = policy.exceptions.entry(device).or_default();
                    *access = access.or(rule.access);
                }
                Some(device) => policy.take_back(device, rule.access)?,
            }
        }
        Ok(policy)
    }

    fn take_back(&mut self, device: Device, access: Access) -> Result<(), String> {
        let wider = |other: &Device| {
            let covers = |one: Option<u32>, other: Option<u32>| one.is_none() || one == other;
            *other != device
                && other.kind == device.kind
                && covers(other.major, device.major)
                && covers(other.minor, device.minor)
        };
        if let Some((other, _)) =
            self.exceptions.iter().find(|(other, had)| wider(other) && !had.and(access).is_empty())
        {
            let (out, of) = (line(&device, access), line(other, access));
            return Err(format!("cgroup v1 cannot except `{out}` from the wider rule `{of}`"));
        }
        if let Some(had) = self.exceptions.get_mut(&device) {
            *had = had.without(access);
            if had.is_empty() {
                self.exceptions.remove(&device);
            }
        }
        Ok(())
    }

    /// From `devices.list`, which has a line per exception of a closed group, and a line for all of an open one.
    fn parse(text: &str) -> Option<Self> {
        let mut policy = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
            let kind = match kind {
                "a" => return Some(Self { open: true, exceptions: BTreeMap::new() }),
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            let (major, minor) = numbers.split_once(':')?;
            let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
            let device = Device { kind, major: number(major)?, minor: number(minor)? };
            let had = policy.exceptions.entry(device).or_default();
            *had = had.or(Access::parse(access)?);
        }
        Some(policy)
    }

    /// What to write to which file.
    fn lines_to(&self, wanted: &Self) -> Vec<(&'static str, String)> {
        let file = |allow| if allow { "devices.allow" } else { "devices.deny" };
        let mut lines = Vec::new();
        let mut had = &self.exceptions;
        let none = BTreeMap::new();
        // The exceptions of an open group cannot be read, so even one that stays open starts anew.
        if self.open || self.open != wanted.open {
            lines.push((file(wanted.open), "a".to_owned()));
            had = &none;
        }
        let get = |map: &BTreeMap<Device, Access>, device| map.get(device).copied().unwrap_or_default();
        let lost = had.iter().map(|(device, access)| (device, access.without(get(&wanted.exceptions, device))));
        let gained = wanted.exceptions.iter().map(|(device, access)| (device, access.without(get(had, device))));
        let lost = lost.map(|(device, access)| (wanted.open, device, access));
        let gained = gained.map(|(device, access)| (!wanted.open, device, access));
        let changes = lost.chain(gained).filter(|(.., access)| !access.is_empty());
        lines.extend(changes.map(|(allow, device, access)| (file(allow), line(device, access))));
        lines
    }
}

fn line(device: &Device, access: Access) -> String {
    let kind = match device.kind {
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    format!("{kind} {}:{} {access}", number(device.major), number(device.minor))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::parse, *};

    fn list(lines: &str) -> Policy {
        Policy::parse(lines).unwrap()
    }

    #[test]
    fn the_list_is_read() {
        assert!(list("a *:* rwm\n").open);
        let closed = list("c 1:3 rwm\nb *:* m\nc 136:* rw\n");
        assert!(!closed.open && closed.exceptions.len() == 3);
        for nonsense in ["x 1:3 rwm", "c 1 rwm", "c 1:3", "c a:3 r", "c 1:3 q"] {
            assert_eq!(Policy::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn an_open_group_is_closed_and_then_opened_for_each() {
        let wanted =
            Policy::of(&parse(r#"[{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"}]"#)).unwrap();
        let lines = list("a *:* rwm\n").lines_to(&wanted);
        assert_eq!(lines[0], ("devices.deny", "a".to_owned()));
        assert!(lines[1..].iter().all(|(file, _)| *file == "devices.allow"));
        assert!(lines.contains(&("devices.allow", "b 8:0 r".to_owned())));
        assert!(lines.contains(&("devices.allow", "c *:* m".to_owned())));
    }

    #[test]
    fn an_update_writes_only_what_changes() {
        let text = "c 1:3 rwm\nc 1:5 rw\nb 8:0 r\n";
        let now = list(text);
        assert_eq!(now.lines_to(&list(text)), []);
        let lines = now.lines_to(&list("c 1:3 r\nc 1:5 rwm\n"));
        let expected = [("devices.deny", "b 8:0 r"), ("devices.deny", "c 1:3 wm"), ("devices.allow", "c 1:5 m")];
        assert_eq!(lines, expected.map(|(file, line)| (file, line.to_owned())));
        // From closed to open, and back.
        assert_eq!(now.lines_to(&list("a *:* rwm\n")), [("devices.allow", "a".to_owned())]);
    }

    #[test]
    fn what_v1_would_forget_is_refused() {
        let hole = r#"[{"allow": true, "type": "c", "major": 10, "access": "rwm"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"}]"#;
        assert!(Policy::of(&parse(hole)).unwrap_err().contains("`c 10:229 w`"));
        // What is not in the wider rule can be taken.
        let beside = r#"[{"allow": true, "type": "c", "major": 10, "access": "r"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"}]"#;
        assert!(Policy::of(&parse(beside)).is_ok());
        let open = r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "major": 8, "access": "w"}]"#;
        let policy = Policy::of(&parse(open)).unwrap();
        assert!(policy.open);
        let lines = list("").lines_to(&policy);
        assert_eq!(lines, [("devices.allow", "a".to_owned()), ("devices.deny", "b 8:* w".to_owned())]);
    }
}

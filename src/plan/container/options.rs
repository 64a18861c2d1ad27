//! The options of a mount, as the runtime spec lists them (config.md, Linux mount options): one table, and what a
//! list of them comes to.
//!
//! The meaning is that of mount(2), as runc gives it to them: the later word wins, a bind mount without any flag keeps
//! its source's, and one with a flag has no other than those. What the table does not know is the file system's own.

use std::ffi::CString;

use super::operations::{Attributes, Parameter, Propagation};

const RDONLY: u64 = libc::MS_RDONLY;
const ATIMES: u64 = libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
/// Since 5.10; not in every libc.
const NOSYMFOLLOW: u64 = 256;
/// Each flag of mount(2) that is one attribute.
const SIMPLE: [(u64, u64); 5] = [
    (RDONLY, libc::MOUNT_ATTR_RDONLY),
    (libc::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
    (libc::MS_NODEV, libc::MOUNT_ATTR_NODEV),
    (libc::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    (NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
];
/// Flags of the file system, by the names that fsconfig(2) has for them.
const OF_SUPERBLOCK: [(u64, &str, &str); 4] = [
    (libc::MS_SYNCHRONOUS, "sync", "async"),
    (libc::MS_DIRSYNC, "dirsync", ""),
    (libc::MS_MANDLOCK, "mand", "nomand"),
    (libc::MS_LAZYTIME, "lazytime", "nolazytime"),
];
pub const IVERSION: u64 = libc::MS_I_VERSION;

enum Effect {
    Set(u64),
    Clear(u64),
    /// On this mount and all below it: attributes.
    SetAll(u64),
    ClearAll(u64),
    Bind {
        recursive: bool,
    },
    Map {
        recursive: bool,
    },
    CopyUp,
}

/// Sorted by name.
const TABLE: [(&str, Effect); 54] = {
    use Effect::{Bind, Clear, ClearAll, CopyUp, Map, Set, SetAll};
    [
        ("async", Clear(libc::MS_SYNCHRONOUS)),
        ("atime", Clear(libc::MS_NOATIME)),
        ("bind", Bind { recursive: false }),
        ("defaults", Set(0)),
        ("dev", Clear(libc::MS_NODEV)),
        ("diratime", Clear(libc::MS_NODIRATIME)),
        ("dirsync", Set(libc::MS_DIRSYNC)),
        ("exec", Clear(libc::MS_NOEXEC)),
        ("idmap", Map { recursive: false }),
        ("iversion", Set(IVERSION)),
        ("lazytime", Set(libc::MS_LAZYTIME)),
        ("loud", Clear(libc::MS_SILENT)),
        ("mand", Set(libc::MS_MANDLOCK)),
        ("noatime", Set(libc::MS_NOATIME)),
        ("nodev", Set(libc::MS_NODEV)),
        ("nodiratime", Set(libc::MS_NODIRATIME)),
        ("noexec", Set(libc::MS_NOEXEC)),
        ("noiversion", Clear(IVERSION)),
        ("nolazytime", Clear(libc::MS_LAZYTIME)),
        ("nomand", Clear(libc::MS_MANDLOCK)),
        ("norelatime", Clear(libc::MS_RELATIME)),
        ("nostrictatime", Clear(libc::MS_STRICTATIME)),
        ("nosuid", Set(libc::MS_NOSUID)),
        ("nosymfollow", Set(NOSYMFOLLOW)),
        ("ratime", ClearAll(libc::MOUNT_ATTR_NOATIME)),
        ("rbind", Bind { recursive: true }),
        ("rdev", ClearAll(libc::MOUNT_ATTR_NODEV)),
        ("rdiratime", ClearAll(libc::MOUNT_ATTR_NODIRATIME)),
        ("relatime", Set(libc::MS_RELATIME)),
        ("remount", Set(libc::MS_REMOUNT)),
        ("rexec", ClearAll(libc::MOUNT_ATTR_NOEXEC)),
        ("ridmap", Map { recursive: true }),
        ("rnoatime", SetAll(libc::MOUNT_ATTR_NOATIME)),
        ("rnodev", SetAll(libc::MOUNT_ATTR_NODEV)),
        ("rnodiratime", SetAll(libc::MOUNT_ATTR_NODIRATIME)),
        ("rnoexec", SetAll(libc::MOUNT_ATTR_NOEXEC)),
        ("rnorelatime", ClearAll(libc::MOUNT_ATTR_RELATIME)),
        ("rnostrictatime", ClearAll(libc::MOUNT_ATTR_STRICTATIME)),
        ("rnosuid", SetAll(libc::MOUNT_ATTR_NOSUID)),
        ("rnosymfollow", SetAll(libc::MOUNT_ATTR_NOSYMFOLLOW)),
        ("ro", Set(RDONLY)),
        ("rrelatime", SetAll(libc::MOUNT_ATTR_RELATIME)),
        ("rro", SetAll(libc::MOUNT_ATTR_RDONLY)),
        ("rrw", ClearAll(libc::MOUNT_ATTR_RDONLY)),
        ("rstrictatime", SetAll(libc::MOUNT_ATTR_STRICTATIME)),
        ("rsuid", ClearAll(libc::MOUNT_ATTR_NOSUID)),
        ("rsymfollow", ClearAll(libc::MOUNT_ATTR_NOSYMFOLLOW)),
        ("rw", Clear(RDONLY)),
        ("silent", Set(libc::MS_SILENT)),
        ("strictatime", Set(libc::MS_STRICTATIME)),
        ("suid", Clear(libc::MS_NOSUID)),
        ("symfollow", Clear(NOSYMFOLLOW)),
        ("sync", Set(libc::MS_SYNCHRONOUS)),
        ("tmpcopyup", CopyUp),
    ]
};

/// Every option that is not the file system's own, for `features`.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name).chain(PROPAGATION_WORDS)
}

const PROPAGATION_WORDS: [&str; 8] =
    ["private", "rprivate", "rshared", "rslave", "runbindable", "shared", "slave", "unbindable"];

/// What a list of options comes to.
#[derive(Debug, Default)]
pub struct Options {
    flags: u64,
    cleared: u64,
    /// `Some(true)`: with the mounts below it.
    pub bind: Option<bool>,
    pub map: Option<bool>,
    pub copy_up: bool,
    recursive: Attributes,
    pub propagation: Vec<Propagation>,
    /// The file system's own, in order.
    pub data: Vec<Parameter>,
}

impl Options {
    /// `Err`: the option that has a NUL byte.
    pub fn parse<'a>(options: impl Iterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut parsed = Self::default();
        for option in options.filter(|option| !option.is_empty()) {
            if let Ok(found) = TABLE.binary_search_by_key(&option, |(name, _)| name) {
                parsed.apply(&TABLE[found].1);
            } else if let Some(propagation) = Propagation::parse(option) {
                parsed.propagation.push(propagation);
            } else {
                for part in split(option) {
                    parsed.data.push(parameter(part).ok_or(option)?);
                }
            }
        }
        Ok(parsed)
    }

    const fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Set(flag) => {
                self.flags |= *flag;
                self.cleared &= !*flag;
            }
            Effect::Clear(flag) => {
                self.flags &= !*flag;
                self.cleared |= *flag;
            }
            Effect::SetAll(attribute) | Effect::ClearAll(attribute) => {
                let set = matches!(effect, Effect::SetAll(_));
                let times = libc::MOUNT_ATTR__ATIME;
                // One of three, of which the usual one is zero: clearing any means that.
                let mask = if *attribute & !times == 0 { times } else { *attribute };
                self.recursive.set &= !mask;
                if set {
                    self.recursive.set |= *attribute;
                }
                if set && mask != times {
                    self.recursive.clear &= !mask;
                } else {
                    self.recursive.clear |= mask;
                }
                self.recursive.must_clear = self.recursive.clear;
            }
            Effect::Bind { recursive } => self.bind = Some(*recursive || matches!(self.bind, Some(true))),
            Effect::Map { recursive } => self.map = Some(*recursive),
            Effect::CopyUp => self.copy_up = true,
        }
    }

    #[must_use]
    pub const fn remount(&self) -> bool {
        self.flags & libc::MS_REMOUNT != 0
    }

    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.flags & RDONLY != 0
    }

    /// Whether the file system is to count changes of its files, which only mount(2) itself can be told.
    #[must_use]
    pub const fn counts_changes(&self) -> bool {
        self.flags & IVERSION != 0
    }

    #[must_use]
    pub const fn recursive(&self) -> Attributes {
        self.recursive
    }

    /// For a mount that is new: what is not asked for is not there to be cleared.
    #[must_use]
    pub fn fresh(&self) -> Attributes {
        Attributes { clear: 0, must_clear: 0, ..self.changed() }
    }

    /// For a mount that is a copy of another, or is there already: without a single flag it is left as it is.
    #[must_use]
    pub fn changed(&self) -> Attributes {
        let untold = libc::MS_REMOUNT;
        if self.flags & !untold == 0 && self.cleared == 0 {
            return Attributes::default();
        }
        let mut attributes = Attributes::default();
        for (flag, attribute) in SIMPLE {
            if self.flags & flag == 0 {
                attributes.clear |= attribute;
                // Not lockable, so nothing keeps it from being cleared.
                if self.cleared & flag != 0 || flag == NOSYMFOLLOW {
                    attributes.must_clear |= attribute;
                }
            } else {
                attributes.set |= attribute;
            }
        }
        if self.flags & ATIMES != 0 {
            let times = libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME;
            attributes.clear |= times;
            attributes.must_clear |= times;
            attributes.set |= match self.flags {
                strict if strict & libc::MS_STRICTATIME != 0 => libc::MOUNT_ATTR_STRICTATIME,
                none if none & libc::MS_NOATIME != 0 => libc::MOUNT_ATTR_NOATIME,
                _ => libc::MOUNT_ATTR_RELATIME,
            };
            if self.flags & libc::MS_NODIRATIME != 0 {
                attributes.set |= libc::MOUNT_ATTR_NODIRATIME;
                attributes.clear &= !libc::MOUNT_ATTR_NODIRATIME;
                attributes.must_clear &= !libc::MOUNT_ATTR_NODIRATIME;
            }
        }
        attributes
    }

    /// What of the flags is the file system's, by its parameters' names.
    pub fn of_superblock(&self) -> impl Iterator<Item = &'static str> + '_ {
        OF_SUPERBLOCK.iter().filter_map(|(flag, set, clear)| match () {
            () if self.flags & flag != 0 => Some(*set),
            () if self.cleared & flag != 0 && self.remount() && !clear.is_empty() => Some(*clear),
            () => None,
        })
    }
}

/// Several in one word, as mount(2) takes them: by commas, but for those in quotes.
fn split(option: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let parts = option.split(move |letter| {
        quoted ^= letter == '"';
        letter == ',' && !quoted
    });
    parts.filter(|part| !part.is_empty())
}

/// `key` or `key=value`.
pub fn parameter(option: &str) -> Option<Parameter> {
    let (key, value) = match option.split_once('=') {
        Some((key, value)) => (key, Some(CString::new(value).ok()?)),
        None => (option, None),
    };
    Some(Parameter { key: CString::new(key).ok()?, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(words.split(' ')).unwrap()
    }

    fn shown(attributes: Attributes) -> String {
        attributes.shown().join(" ")
    }

    #[test]
    fn the_table_is_sorted_and_whole() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| name));
        // config.md, Linux mount options.
        let spec = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
                    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
                    ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime \
                    rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
                    rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable \
                    idmap ridmap";
        for word in spec.split_whitespace() {
            assert!(names().any(|name| name == word), "{word}");
            assert!(parse(word).data.is_empty(), "{word}");
        }
        assert_eq!(names().count(), spec.split_whitespace().count());
    }

    #[test]
    fn each_flag_is_its_attribute() {
        for (word, wanted) in [
            ("ro", "+ro"),
            ("nosuid", "+nosuid"),
            ("nodev", "+nodev"),
            ("noexec", "+noexec"),
            ("nosymfollow", "+nosymfollow"),
            ("noatime", "+noatime"),
            ("strictatime", "+strictatime"),
            ("relatime", "+relatime"),
            ("nodiratime", "+nodiratime"),
        ] {
            let found = parse(word);
            assert!(shown(found.changed()).contains(wanted), "{word}");
            assert!(shown(found.fresh()).contains(wanted) || word.ends_with("atime"), "{word}");
            assert_eq!(found.fresh().clear, 0, "{word}");
        }
        for (word, wanted) in
            [("rw", "-ro"), ("suid", "-nosuid"), ("dev", "-nodev"), ("exec", "-noexec"), ("symfollow", "-nosymfollow")]
        {
            assert!(shown(parse(word).changed()).contains(wanted), "{word}");
            assert_eq!(parse(word).changed().set, 0, "{word}");
        }
        assert_eq!(parse("noatime").fresh().set, libc::MOUNT_ATTR_NOATIME);
        assert_eq!(parse("strictatime").fresh().set, libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(parse("noatime nodiratime").fresh().set, libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_NODIRATIME);
    }

    #[test]
    fn without_a_flag_nothing_changes() {
        for words in ["", "bind", "rbind rprivate", "defaults", "remount", "bind x-custom=1", "tmpcopyup"] {
            assert!(parse(words).changed().is_empty(), "{words}");
        }
        // With one, all others are cleared, but times only if one is named.
        let one = parse("bind nosuid").changed();
        assert_eq!(one.set, libc::MOUNT_ATTR_NOSUID);
        assert_eq!(one.clear & libc::MOUNT_ATTR_RDONLY, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(one.must_clear, libc::MOUNT_ATTR_NOSYMFOLLOW);
        assert_eq!(one.clear & libc::MOUNT_ATTR__ATIME, 0);
        for words in ["atime", "diratime", "norelatime", "nostrictatime", "silent", "loud"] {
            assert_eq!(parse(words).changed().set, 0, "{words}");
            assert_eq!(parse(words).changed().clear & libc::MOUNT_ATTR__ATIME, 0, "{words}");
        }
    }

    #[test]
    fn the_later_word_wins() {
        assert!(!parse("ro rw").read_only());
        assert!(parse("rw ro").read_only());
        assert_eq!(
            shown(parse("noexec exec nosuid suid suid nosuid").changed()),
            "+nosuid -noexec -nosymfollow -others"
        );
        assert_eq!(parse("noatime atime").fresh().set, 0);
        assert_eq!(parse("noatime relatime strictatime").fresh().set, libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(parse("rro rrw").recursive().set, 0);
        assert_eq!(parse("rro rrw").recursive().clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("rrw rro").recursive().set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("rrw rro").recursive().clear, 0);
        assert_eq!(parse("idmap ridmap").map, Some(true));
        assert_eq!(parse("ridmap idmap").map, Some(false));
        assert_eq!(parse("rbind bind").bind, Some(true));
    }

    #[test]
    fn recursive_words_are_attributes() {
        for (word, set, clear) in [
            ("rro", libc::MOUNT_ATTR_RDONLY, 0),
            ("rrw", 0, libc::MOUNT_ATTR_RDONLY),
            ("rnosuid", libc::MOUNT_ATTR_NOSUID, 0),
            ("rsuid", 0, libc::MOUNT_ATTR_NOSUID),
            ("rnodev", libc::MOUNT_ATTR_NODEV, 0),
            ("rdev", 0, libc::MOUNT_ATTR_NODEV),
            ("rnoexec", libc::MOUNT_ATTR_NOEXEC, 0),
            ("rexec", 0, libc::MOUNT_ATTR_NOEXEC),
            ("rnosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
            ("rsymfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
            ("rnodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
            ("rdiratime", 0, libc::MOUNT_ATTR_NODIRATIME),
            ("rnoatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
            ("ratime", 0, libc::MOUNT_ATTR__ATIME),
            ("rstrictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
            ("rnostrictatime", 0, libc::MOUNT_ATTR__ATIME),
            ("rrelatime", 0, libc::MOUNT_ATTR__ATIME),
            ("rnorelatime", 0, libc::MOUNT_ATTR__ATIME),
            ("rnoatime rstrictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
        ] {
            let found = parse(word).recursive();
            assert_eq!((found.set, found.clear), (set, clear), "{word}");
            assert!(parse(word).changed().is_empty(), "{word}");
        }
    }

    #[test]
    fn propagation_keeps_its_order() {
        let shown = |words| parse(words).propagation.iter().map(Propagation::shown).collect::<Vec<_>>();
        assert_eq!(shown("shared rslave bind private"), ["shared", "rslave", "private"]);
        assert_eq!(shown("runbindable unbindable rprivate rshared slave").len(), 5);
    }

    #[test]
    fn of_the_file_system_is_the_rest() {
        let shown = |words| parse(words).data.iter().map(Parameter::shown).collect::<Vec<_>>();
        assert_eq!(shown("size=64k nosuid mode=755"), ["size=64k", "mode=755"]);
        assert_eq!(shown("size=64k,mode=755 newinstance"), ["size=64k", "mode=755", "newinstance"]);
        assert_eq!(shown(r#"context="a,b",huge=never"#), [r#"context="a,b""#, "huge=never"]);
        // Words of the table count only as a whole.
        assert_eq!(shown("ro=1 RO rro2 xbind"), ["ro=1", "RO", "rro2", "xbind"]);
        let superblock = |words| parse(words).of_superblock().collect::<Vec<_>>();
        assert_eq!(superblock("sync dirsync mand lazytime"), ["sync", "dirsync", "mand", "lazytime"]);
        assert!(superblock("sync async lazytime nolazytime").is_empty());
        assert_eq!(superblock("remount async nomand nolazytime"), ["async", "nomand", "nolazytime"]);
        assert!(parse("iversion").counts_changes() && !parse("iversion noiversion").counts_changes());
    }
}

//! `linux.intelRdt`: shares of cache and memory bandwidth, and what of them is used, by a group of resctrl's.
//!
//! As with control groups, what will be made is decided and recorded first. A group with a name of its own
//! (`closID`) is its maker's to remove; one that is called like the container is ours, if we made it. Sources:
//! runtime-spec `config-linux.md`, "IntelRdt"; Linux, `filesystems/resctrl.rst`.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use super::{ContainerCgroupError, Result};
use crate::sys::fs::is_of_kind;

const USUAL: &str = "/sys/fs/resctrl";
/// RDTGROUP_SUPER_MAGIC of linux/magic.h.
const MAGIC: i64 = 0x0765_5821;

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    root: PathBuf,
    group: PathBuf,
    /// The group below it whose use is counted.
    monitoring: Option<PathBuf>,
    /// Whether the group ends with the container.
    ours: bool,
}

/// What is to be made.
#[derive(Debug)]
pub struct Wanted {
    place: Place,
    /// Not there yet.
    new: bool,
    schemata: String,
}

fn bad(field: &str, why: impl Into<String>) -> ContainerCgroupError {
    ContainerCgroupError::value(format!("linux.intelRdt{field}"), why)
}

impl Wanted {
    /// Looks at what this host has.
    ///
    /// # Errors
    /// When it has not what is asked for, or has the group with other shares.
    pub fn decide(spec: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let missing = |why: String| {
            Err(bad("", format!("there is no resctrl file system: {why} (mount -t resctrl resctrl {USUAL})")))
        };
        let root = match fs::File::open(USUAL) {
            Ok(found) if is_of_kind(found.as_fd(), MAGIC) => PathBuf::from(USUAL),
            Ok(_) => match mounted_elsewhere() {
                Some(root) => root,
                None => return missing("it is mounted nowhere".to_owned()),
            },
            Err(_) => return missing("this host's processors or its kernel have no such control".to_owned()),
        };
        Self::decide_in(root, spec, id)
    }

    fn decide_in(root: PathBuf, spec: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let has = |info: &str| root.join("info").join(info).exists();
        let lines = |text: &Option<String>| text.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        let (cache, bandwidth): (Vec<String>, Vec<String>) =
            (lines(spec.l3_cache_schema()), lines(spec.mem_bw_schema()));
        let monitored = spec.enable_monitoring().unwrap_or(false);
        for (field, wanted, info, what) in [
            (".l3CacheSchema", !cache.is_empty(), ["L3", "L3CODE"], "shares of the L3 cache"),
            (".memBwSchema", !bandwidth.is_empty(), ["MB", "MB"], "shares of memory bandwidth"),
            (".enableMonitoring", monitored, ["L3_MON", "L3_MON"], "monitoring"),
        ] {
            if wanted && !info.iter().any(|info| has(info)) {
                let why = format!("this host has no {what}: there is no {}", root.join("info").join(info[0]).display());
                return Err(bad(field, why));
            }
        }
        let schemata = spec.schemata().as_deref().unwrap_or_default();
        let named = spec.clos_id().as_deref().filter(|class| !class.is_empty());
        let group = match named {
            Some("/") => root.clone(),
            Some(class) => root.join(class),
            None => root.join(id),
        };
        let new = !group.exists();
        if new && named.is_some() && cache.is_empty() && bandwidth.is_empty() && schemata.is_empty() {
            let why = format!("there is no {}, and nothing to make it with", group.display());
            return Err(bad(".closID", why));
        }
        if !new && named.is_some() {
            let path = group.join("schemata");
            let there = if cache.is_empty() && bandwidth.is_empty() { String::new() } else { read(&path)? };
            for (field, lines) in [(".l3CacheSchema", &cache), (".memBwSchema", &bandwidth)] {
                if let Some(line) = lines.iter().find(|line| !holds(&there, line)) {
                    return Err(bad(field, format!("`{line}` is not what {} says", path.display())));
                }
            }
        }
        let monitoring = monitored.then(|| group.join("mon_groups").join(id));
        let place = Place { root, ours: new && named.is_none(), group, monitoring };
        Ok(Self { place, new, schemata: text(cache.iter().chain(&bandwidth).chain(schemata)) })
    }

    /// For the record.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Makes what is not there, or nothing.
    pub fn make(&self) -> Result<()> {
        let place = &self.place;
        if self.new {
            place.make_group(&place.group)?;
        }
        let shared = if self.schemata.is_empty() { Ok(()) } else { place.write("schemata", &self.schemata) };
        let made = shared.and_then(|()| place.monitoring.as_ref().map_or(Ok(()), |group| place.make_group(group)));
        if made.is_err() && self.new {
            _ = fs::remove_dir(&place.group);
        }
        made
    }
}

impl Place {
    /// Puts a process in, and with it whatever it forks from then on.
    pub fn admit(&self, pid: i32) -> Result<()> {
        self.write("tasks", &pid.to_string())?;
        match &self.monitoring {
            Some(group) => self.write_to(group.join("tasks"), &pid.to_string()),
            None => Ok(()),
        }
    }

    /// Removes what ends with the container.
    pub fn remove(&self) -> Result<()> {
        // With a group goes what is below it.
        let Some(path) = (if self.ours { Some(&self.group) } else { self.monitoring.as_ref() }) else { return Ok(()) };
        match fs::remove_dir(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, &error)),
            _ => Ok(()),
        }
    }

    fn make_group(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).map_err(|error| self.explained(failed("make", path, &error)))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        self.write_to(self.group.join(file), text)
    }

    fn write_to(&self, path: PathBuf, text: &str) -> Result<()> {
        fs::write(&path, text).map_err(|error| {
            let value = text.trim_end().replace('\n', " ");
            self.explained(ContainerCgroupError::Write { value, path, source: errno(&error) })
        })
    }

    /// With the kernel's own words, where it has any.
    fn explained(&self, error: ContainerCgroupError) -> ContainerCgroupError {
        let said = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        match (said.trim(), error.errno()) {
            ("" | "ok", _) | (_, None) => error,
            (said, Some(errno)) => bad("", format!("{error}: {}: {said}", errno.desc())),
        }
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn failed(action: &'static str, path: &Path, error: &std::io::Error) -> ContainerCgroupError {
    ContainerCgroupError::Io { action, path: path.to_owned(), source: errno(error) }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| failed("read", path, &error))
}

fn mounted_elsewhere() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// As the kernel takes them: a line each, all at once.
fn text<'a>(lines: impl Iterator<Item = &'a String>) -> String {
    lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// A line such as `L3:0=7f0;1=1f`: of what, and how much of each.
fn parse(line: &str) -> Option<(&str, BTreeMap<&str, String>)> {
    let (kind, shares) = line.split_once(':')?;
    let shares = shares.split(';').map(|share| {
        let (number, value) = share.split_once('=')?;
        // The kernel fills masks up with zeroes, and numbers with spaces.
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((number.trim(), value))
    });
    Some((kind.trim(), shares.collect::<Option<_>>()?))
}

/// Whether a group's schemata say what `line` does of all that it names.
fn holds(schemata: &str, line: &str) -> bool {
    let Some((kind, wanted)) = parse(line) else { return false };
    let found = schemata.lines().filter_map(parse).find(|(found, _)| *found == kind);
    found.is_some_and(|(_, there)| wanted.iter().all(|(number, share)| there.get(number) == Some(share)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As Linux shows them on a machine with two sockets.
    const SHOWN: &str = "    MB:0= 20;1= 70\n    L3:0=7f0;1=01f\n";

    fn wanted(root: &Path, spec: serde_json::Value) -> std::result::Result<Wanted, String> {
        let spec = serde_json::from_value(spec).unwrap();
        Wanted::decide_in(root.to_owned(), &spec, "box").map_err(|error| error.to_string())
    }

    /// Directories as resctrl has them on a host with everything.
    fn host(infos: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for info in infos {
            fs::create_dir_all(dir.path().join("info").join(info)).unwrap();
        }
        fs::create_dir_all(dir.path().join("guaranteed_group")).unwrap();
        fs::write(dir.path().join("guaranteed_group/schemata"), SHOWN).unwrap();
        dir
    }

    #[test]
    fn shares_are_compared_as_the_kernel_shows_them() {
        for line in ["L3:0=7f0;1=1f", "L3:1=01F;0=7F0", "MB:0=20;1=70", "L3:1=1f"] {
            assert!(holds(SHOWN, line), "{line}");
        }
        for line in ["L3:0=7f0;1=1e", "L3:2=7f0", "L2:0=f", "MB:0=200", "L3", "L3:", "L3:0", ""] {
            assert!(!holds(SHOWN, line), "{line}");
        }
    }

    #[test]
    fn lines_are_written_in_the_specifications_order() {
        let host = host(&["L3", "MB"]);
        let spec = json!({ "memBwSchema": "MB:0=20;1=70", "schemata": ["L2:0=f;1=f", "L3:0=3"], "l3CacheSchema": "L3:0=7f0;1=1f" });
        let wanted = wanted(host.path(), spec).unwrap();
        assert_eq!(wanted.schemata, "L3:0=7f0;1=1f\nMB:0=20;1=70\nL2:0=f;1=f\nL3:0=3\n");
        assert_eq!((wanted.new, wanted.place.ours, &wanted.place.group), (true, true, &host.path().join("box")));
    }

    #[test]
    fn a_group_with_a_name_is_nobodys_to_remove() {
        let host = host(&["L3", "MB", "L3_MON"]);
        let named = |more: serde_json::Value| {
            let mut spec = json!({ "closID": "guaranteed_group" });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            wanted(host.path(), spec)
        };
        let same = named(json!({ "l3CacheSchema": "L3:0=7f0", "enableMonitoring": true })).unwrap();
        assert_eq!((same.new, same.place.ours), (false, false));
        assert_eq!(same.place.monitoring, Some(host.path().join("guaranteed_group/mon_groups/box")));
        let other = named(json!({ "memBwSchema": "MB:0=30" })).unwrap_err();
        assert!(other.starts_with("linux.intelRdt.memBwSchema: `MB:0=30` is not what"), "{other}");
        let made = wanted(host.path(), json!({ "closID": "new", "schemata": ["L3:0=1"] })).unwrap();
        assert_eq!((made.new, made.place.ours), (true, false));
        let none = wanted(host.path(), json!({ "closID": "new" })).unwrap_err();
        assert!(none.starts_with("linux.intelRdt.closID: there is no "), "{none}");
        let root = wanted(host.path(), json!({ "closID": "/" })).unwrap();
        assert_eq!((&root.place.group, root.new), (&host.path().to_owned(), false));
    }

    #[test]
    fn what_a_host_has_not_is_named() {
        let host = host(&[]);
        for (field, value) in
            [("l3CacheSchema", json!("L3:0=1")), ("memBwSchema", json!("MB:0=1")), ("enableMonitoring", json!(true))]
        {
            let error = wanted(host.path(), json!({ field: value })).unwrap_err();
            assert!(error.starts_with(&format!("linux.intelRdt.{field}: this host has no ")), "{error}");
        }
    }

    #[test]
    fn what_is_ours_is_removed_and_nothing_else() {
        let host = host(&["L3"]);
        let ours = wanted(host.path(), json!({})).unwrap();
        ours.make().unwrap();
        assert!(ours.place.group.is_dir());
        // Whoever came between made it: it is theirs.
        assert!(ours.make().is_err() && ours.place.group.is_dir());
        ours.place.remove().unwrap();
        assert!(!ours.place.group.exists());
        ours.place.remove().unwrap();
        wanted(host.path(), json!({ "closID": "guaranteed_group" })).unwrap().place.remove().unwrap();
        assert!(host.path().join("guaranteed_group").is_dir());
    }
}

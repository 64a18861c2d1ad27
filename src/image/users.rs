//! Who an image's `User` is, by the image's own /etc/passwd and /etc/group, which are hostile: read as data, with an
//! end, and without a look at the host's (CVE-2019-14271).

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use super::ImageError;
use crate::sys::{Errno, fs};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    pub uid: u32,
    pub gid: u32,
    /// The other groups that it is in.
    pub groups: Vec<u32>,
    pub home: Option<String>,
}

/// No /etc/passwd of an image comes near this. Half of one would say something else than the whole.
const MOST: u64 = 1 << 20;
const MOST_GROUPS: usize = 1000;

/// `USER[:GROUP]`, each a name or a number; nothing means root (image-spec `config.md`, "User").
pub fn find(text: &str, root: &Path) -> Result<Who, ImageError> {
    let bad = |why: &str| ImageError::User { text: text.escape_debug().take(100).collect(), why: why.to_owned() };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match id(text) {
            Some(id) => Ok(Some(id)),
            _ if digits => Err(bad("the number is out of range")),
            _ => Ok(None),
        }
    };
    let (passwd, groups) = (read(root, c"etc/passwd")?, read(root, c"etc/group")?);
    let wanted = number(user)?;
    // A name that is a number is a number (CVE-2016-3697).
    let line = lines(&passwd).find(|fields| match wanted {
        Some(uid) => fields.get(2).copied().and_then(id) == Some(uid),
        None => fields.first() == Some(&user),
    });
    let field = |index: usize| line.as_ref().and_then(|fields| fields.get(index)).copied();
    let uid = match (wanted, field(2).and_then(id)) {
        (Some(uid), _) | (None, Some(uid)) => uid,
        (None, None) => return Err(bad("the image's /etc/passwd has no such user")),
    };
    let home = field(5).filter(|home| home.starts_with('/')).map(str::to_owned);
    if let Some(group) = group {
        let gid = match number(group)? {
            Some(gid) => gid,
            None => lines(&groups)
                .find(|fields| fields.first() == Some(&group))
                .and_then(|fields| id(fields.get(2)?))
                .ok_or_else(|| bad("the image's /etc/group has no such group"))?,
        };
        return Ok(Who { uid, gid, groups: Vec::new(), home });
    }
    let name = field(0);
    let member = |fields: &Vec<&str>| {
        fields.get(3).is_some_and(|members| members.split(',').any(|member| Some(member) == name && !member.is_empty()))
    };
    let others = lines(&groups).filter(member).filter_map(|fields| id(fields.get(2)?)).take(MOST_GROUPS);
    let gid = match field(3) {
        Some(field) => id(field).ok_or_else(|| bad("its group in the image's /etc/passwd is no number"))?,
        None => 0,
    };
    let mut groups: Vec<u32> = others.collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(Who { uid, gid, groups, home })
}

/// No id is above this: -1 means none to the kernel, and others were taken for 0 once they had wrapped (CVE-2024-40635).
fn id(field: &str) -> Option<u32> {
    let digits = field.bytes().all(|byte| byte.is_ascii_digit());
    field.parse().ok().filter(|id| digits && *id < i32::MAX as u32)
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// A file of the tree, its links kept within; nothing where there is none.
fn read(root: &Path, path: &std::ffi::CStr) -> Result<String, ImageError> {
    let failed = |error: io::Error| ImageError::Io { action: "read", path: root.to_owned(), source: error };
    let dir = File::open(root).map_err(failed)?;
    let found = match fs::open_in(dir.as_fd(), path, libc::O_PATH, 0, fs::LINKS_IN_ROOT) {
        Ok(found) => File::from(found),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(String::new()),
        Err(errno) => return Err(failed(errno.into())),
    };
    // Opening a device does things, and a pipe would be waited for.
    if !found.metadata().map_err(failed)?.is_file() {
        return Ok(String::new());
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST {
        let what = format!("/{} of the image", path.to_string_lossy());
        return Err(ImageError::Import { what, why: format!("it has more than {MOST} bytes") });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nme:x:7:8::/home/me:/bin/sh\n99:x:5:5::/:/\nbroken\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nmine:x:8:\nothers:x:9:a,me\n").unwrap();
        root
    }

    #[test]
    fn names_and_numbers() {
        let root = image();
        let ids = |text| find(text, root.path()).map(|who| (who.uid, who.gid, who.groups)).map_err(|e| e.to_string());
        assert_eq!(ids(""), Ok((0, 0, vec![])));
        assert_eq!(ids("me"), Ok((7, 8, vec![9])));
        assert_eq!(ids("7"), Ok((7, 8, vec![9])));
        assert_eq!(ids("me:others"), Ok((7, 9, vec![])));
        assert_eq!(ids("1234:5"), Ok((1234, 5, vec![])));
        assert_eq!(ids("1234"), Ok((1234, 0, vec![])));
        assert_eq!(ids("99"), Ok((99, 0, vec![])), "a number is never a name");
        for bad in ["nobody", "me:nogroup", "4294967295", "4294967296", "-1", "me:4294967297"] {
            assert!(ids(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cve_2019_14271_the_files_are_the_images_own() {
        let root = image();
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/passwd", root.path().join("etc/passwd")).unwrap();
        assert!(find("me", root.path()).is_err(), "it leads to itself");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(find("5", empty.path()).unwrap().uid, 5);
        assert!(find("daemon", empty.path()).is_err());
    }

    #[test]
    fn what_is_no_file_is_not_opened_and_what_is_too_long_is_not_half_read() {
        let root = image();
        let passwd = root.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(find("7", root.path()).unwrap().gid, 0, "a pipe has no lines");
        std::fs::remove_file(&passwd).unwrap();
        let end = "me:x:1000:1000::/:\n";
        let filled = |length: usize| format!("{}\n{end}", "x".repeat(length - end.len() - 1));
        std::fs::write(&passwd, filled(MOST as usize)).unwrap();
        assert_eq!(find("me", root.path()).unwrap().uid, 1000);
        std::fs::write(&passwd, filled(MOST as usize + 3)).unwrap();
        assert!(find("me", root.path()).is_err(), "it would be user 1 if its end were cut off");
    }

    #[test]
    fn cve_2024_40635_no_line_of_the_files_wraps_to_root() {
        let root = image();
        for line in [
            "me:x:4294967296:0::/:",
            "me:x:4294967295:0::/:",
            "me:x:-1:0::/:",
            "me:x:+0:0::/:",
            "me:x::0::/:",
            "me:x:7:4294967296::/:",
        ] {
            std::fs::write(root.path().join("etc/passwd"), line).unwrap();
            assert!(find("me", root.path()).is_err(), "{line}");
        }
    }
}

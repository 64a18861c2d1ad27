//! /proc/PID/mountinfo (proc_pid_mountinfo(5)): what is mounted where, as that process sees it.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// A line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub id: u32,
    /// The file system, as `MAJOR:MINOR`.
    pub device: String,
    /// What of the file system is mounted.
    pub root: PathBuf,
    pub target: PathBuf,
    /// The mount's own options.
    pub attributes: String,
    pub kind: String,
    /// The file system's own options.
    pub options: String,
}

/// What that process (`self`, `thread-self` or a number) sees mounted, in order.
pub fn of(process: &str) -> std::io::Result<Vec<Mounted>> {
    let text = std::fs::read(Path::new("/proc").join(process).join("mountinfo"))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(line).collect())
}

fn line(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut next = || words.next();
    let (id, device) = (next()?, next().and_then(|_| next())?);
    let (root, target, attributes) = (next()?, next()?, next()?);
    let mut rest = words.skip_while(|word| *word != b"-").skip(1);
    let kind = String::from_utf8(rest.next()?.to_owned()).ok()?;
    let options = String::from_utf8_lossy(rest.nth(1)?).into_owned();
    Some(Mounted {
        id: std::str::from_utf8(id).ok()?.parse().ok()?,
        device: String::from_utf8_lossy(device).into_owned(),
        root: unescape(root),
        target: unescape(target),
        attributes: String::from_utf8_lossy(attributes).into_owned(),
        kind,
        options,
    })
}

/// Blanks and the like are `\\040` there.
fn unescape(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_as_the_kernel_writes_it() {
        let text = b"36 35 98:0 /a\\040b /mnt\\0402 rw,noatime master:1 shared:3 - cgroup /dev/root rw,name=systemd";
        let found = line(text).unwrap();
        assert_eq!(
            found,
            Mounted {
                id: 36,
                device: "98:0".into(),
                root: "/a b".into(),
                target: "/mnt 2".into(),
                attributes: "rw,noatime".into(),
                kind: "cgroup".into(),
                options: "rw,name=systemd".into()
            }
        );
        assert_eq!(line(b"36 35 98:0 / /mnt rw - proc proc rw").unwrap().kind, "proc");
        assert!(line(b"36 35 98:0 / /mnt rw").is_none());
        assert!(line(b"").is_none());
    }
}

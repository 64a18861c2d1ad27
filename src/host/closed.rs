//! Which directory on the way to a path is closed: an errno does not say. For errors alone, since it looks at every
//! one of them.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The first directory on the way to `path`, or itself, that only its owner or group may enter: a sandbox of root's
/// has ids that are neither.
#[must_use]
pub fn closed_to_others(path: &Path) -> Option<PathBuf> {
    first(path, |dir| fs::metadata(dir).is_ok_and(|found| found.is_dir() && found.permissions().mode() & 0o001 == 0))
}

/// The first directory on the way to `path`, or itself, that we may not enter.
#[must_use]
pub fn closed_to_us(path: &Path) -> Option<PathBuf> {
    first(path, |dir| {
        fs::symlink_metadata(dir.join(".")).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    })
}

fn first(path: &Path, closed: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let ancestors: Vec<_> = path.ancestors().collect();
    ancestors.into_iter().rev().find(|dir| closed(dir)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_closed_directory_is_named() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("outer/inner/file");
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        fs::write(&dir, "").unwrap();
        let set = |name: &str, mode| {
            fs::set_permissions(place.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        set("", 0o711);
        set("outer", 0o755);
        set("outer/inner", 0o701);
        assert_eq!(closed_to_others(&dir), None, "a file is entered by nobody");
        set("outer/inner", 0o750);
        assert_eq!(closed_to_others(&dir), Some(place.path().join("outer/inner")));
        set("outer", 0o700);
        assert_eq!(closed_to_others(&dir), Some(place.path().join("outer")));
        assert_eq!(closed_to_us(&dir), None);
    }
}

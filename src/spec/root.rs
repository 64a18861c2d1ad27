//! What a directory must get before it can be a root: the mount points it lacks.

use std::path::{Path, PathBuf};

use super::{Base, SpecError};
use crate::plan::setup::Kind;

/// Looks at `root` for `targets`. A missing one is put in the skeleton with its parents; one that is a link,
/// or of the wrong kind, is refused (CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: the launcher refuses
/// it again at the moment of mounting, by descriptor).
pub(super) fn examine(root: &Path, targets: &[(PathBuf, Kind)], image: bool) -> Result<Base, SpecError> {
    let failed = |source| SpecError::Root { path: root.to_owned(), source };
    let path = std::fs::canonicalize(root).map_err(failed)?;
    if !path.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    let mut skeleton = Vec::new();
    for (target, kind) in targets {
        let mut inside = PathBuf::from("/");
        let parts: Vec<_> = target.components().skip(1).collect();
        for (index, part) in parts.iter().enumerate() {
            inside.push(part);
            let wanted = if index + 1 == parts.len() { *kind } else { Kind::Dir };
            let hostile = |what| SpecError::Hostile { root: path.clone(), path: inside.display().to_string(), what };
            match std::fs::symlink_metadata(path.join(inside.strip_prefix("/").unwrap_or(&inside))) {
                Ok(found) if found.is_symlink() => return Err(hostile("a symlink")),
                Ok(found) if found.is_dir() != (wanted == Kind::Dir) => {
                    return Err(hostile("not what must be mounted there"));
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    // Directories above it that are there get merged with the skeleton's.
                    let above = inside.ancestors().skip(1).filter(|above| *above != Path::new("/"));
                    let above: Vec<_> = above.map(|above| (above.to_owned(), Kind::Dir)).collect();
                    for (path, kind) in above.into_iter().rev().chain([(inside.clone(), wanted)]) {
                        if !skeleton.iter().any(|(known, _)| *known == path) {
                            skeleton.push((path, kind));
                        }
                    }
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(Base::Dir { path, skeleton, image })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_mount_points_come_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let targets = [(PathBuf::from("/proc"), Kind::Dir), (PathBuf::from("/a/b"), Kind::File)];
        let Base::Dir { skeleton, .. } = examine(dir.path(), &targets, false).unwrap() else { panic!() };
        assert_eq!(skeleton, [(PathBuf::from("/a"), Kind::Dir), (PathBuf::from("/a/b"), Kind::File)]);
        let targets = [(PathBuf::from("/proc/b"), Kind::File)];
        let Base::Dir { skeleton, .. } = examine(dir.path(), &targets, false).unwrap() else { panic!() };
        assert_eq!(skeleton, [(PathBuf::from("/proc"), Kind::Dir), (PathBuf::from("/proc/b"), Kind::File)]);
    }

    #[test]
    fn cve_2019_19921_a_linked_mount_point_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc", dir.path().join("proc")).unwrap();
        assert!(matches!(examine(dir.path(), &[("/proc".into(), Kind::Dir)], true), Err(SpecError::Hostile { .. })));
        std::fs::write(dir.path().join("dev"), "").unwrap();
        assert!(examine(dir.path(), &[("/dev".into(), Kind::Dir)], false).is_err());
        assert!(examine(&dir.path().join("gone"), &[], false).is_err());
    }
}

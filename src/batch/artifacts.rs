//! What a job leaves, as files: a directory for each, named by the line of the input and by as much of its id as is safe
//! in a name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::job::Label;
use crate::Outcome;

const LONGEST: usize = 64;

/// `000012-name`: numbers come first, so that no id is another's place. Lines are those of one connection where there are
/// several, so its number comes before all: `c3-000012-name`.
pub(super) fn dir(all: &Path, (from, line): (u64, u64), id: Option<&Label>) -> PathBuf {
    let mut name = if from == 0 { String::new() } else { format!("c{from}-") };
    name += &format!("{line:06}");
    if let Some(id) = id {
        name.push('-');
        let safe = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
        name.extend(id.to_string().chars().map(safe).take(LONGEST));
    }
    all.join(name)
}

/// Makes the directory anew: of an attempt that did not count nothing stays.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(dir)
}

pub(super) fn write(dir: &Path, outcome: &Outcome) -> io::Result<()> {
    fs::write(dir.join("stdout"), &outcome.stdout.bytes)?;
    fs::write(dir.join("stderr"), &outcome.stderr.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_leads_elsewhere() {
        let all = Path::new("/a");
        let long = "x".repeat(500);
        for id in ["../../etc", "/etc/passwd", "..", ".", "", "a\0b", "é\n", "-rf", long.as_str()] {
            let dir = dir(all, (0, 12), Some(&Label::Text(id.to_owned())));
            assert_eq!(dir.parent(), Some(all), "{id}");
            let name = dir.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("000012-") && name.len() <= 7 + LONGEST && name.is_ascii(), "{name}");
        }
        assert_eq!(dir(all, (0, 12), None), Path::new("/a/000012"));
        assert_eq!(dir(all, (3, 12), None), Path::new("/a/c3-000012"));
    }
}

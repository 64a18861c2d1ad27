//! A configuration file that belongs to somebody else.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use fumehood::{Error, Result};

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it really is: links are followed, and stay.
    path: PathBuf,
    /// None: it is not there.
    pub(super) text: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Write(String),
    /// Nothing but ours was ever in it.
    Remove,
}

/// Longer than any configuration.
const MOST: u64 = 4 << 20;

pub(super) fn read(path: &Path) -> Result<Found> {
    let failed = |error: io::Error| Error::new(format!("cannot read `{}`: {error}", path.display()));
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(Error::new(format!("`{}` is a link that leads nowhere", path.display())));
            }
            return Ok(Found { path: path.to_owned(), text: None });
        }
        Err(error) => return Err(failed(error)),
    };
    let found = fs::metadata(&real).map_err(failed)?;
    if !found.is_file() || found.len() > MOST {
        return Err(Error::new(format!("`{}` is no configuration file", path.display())));
    }
    let text = fs::read_to_string(&real).map_err(failed)?;
    Ok(Found { path: real, text: Some(text) })
}

impl Found {
    /// `after` is what it is to hold; empty: nothing.
    pub(super) fn change(&self, after: String) -> Change {
        match &self.text {
            Some(before) if *before == after => Change::None,
            None if after.trim().is_empty() => Change::None,
            // A backup tells that something was there before us.
            Some(_) if after.trim().is_empty() && !self.backup().exists() => Change::Remove,
            _ => Change::Write(after),
        }
    }

    fn backup(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".before-fumehood");
        self.path.with_file_name(name)
    }

    pub(super) fn apply(&self, change: &Change) -> Result<()> {
        let failed = |error: io::Error| {
            let why = Error::new(format!("cannot write `{}`: {error}", self.path.display()));
            match error.kind() {
                io::ErrorKind::PermissionDenied => why.with_hint("root's configuration is root's to change"),
                _ => why,
            }
        };
        match change {
            Change::None => Ok(()),
            Change::Remove => fs::remove_file(&self.path).map_err(failed),
            Change::Write(text) => {
                if self.text.is_some() {
                    fs::copy(&self.path, self.backup()).map_err(failed)?;
                } else if let Some(dir) = self.path.parent() {
                    fs::create_dir_all(dir).map_err(failed)?;
                }
                self.replace(text).map_err(failed)
            }
        }
    }

    /// Whole at once, with the owner and mode that it had.
    fn replace(&self, text: &str) -> io::Result<()> {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let unseen = self.path.with_file_name(name);
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(0o644).open(&unseen)?;
            if let Ok(before) = fs::metadata(&self.path) {
                fchown(&file, Some(before.uid()), Some(before.gid()))?;
                file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unseen, &self.path)
        })();
        if written.is_err() {
            _ = fs::remove_file(&unseen);
        }
        written
    }
}

impl Change {
    pub(super) fn tell(&self, path: &Path, dry_run: bool) -> String {
        let path = path.display();
        let would = if dry_run { "would " } else { "" };
        match self {
            Self::None => format!("{path} is as it is to be\n"),
            Self::Remove => format!("{would}remove {path}, which has nothing else in it\n"),
            Self::Write(text) if dry_run => format!("would write {path}:\n{text}\n"),
            Self::Write(_) => format!("wrote {path}\n"),
        }
    }
}

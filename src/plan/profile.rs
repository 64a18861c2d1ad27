//! The three built-in profiles: a seccomp filter and a Landlock policy under one name.

use super::{
    landlock::{Policy, PolicyError},
    seccomp,
};

/// A profile by name. Its data is in `profiles/`, readable with `fumehood profile show NAME`.
#[derive(Debug)]
pub struct Builtin {
    pub name: &'static str,
    pub about: &'static str,
    pub landlock: &'static str,
}

pub const DEFAULT: &Builtin = &BUILTINS[0];

pub const BUILTINS: [Builtin; 3] = [
    Builtin {
        name: "default",
        about: "what ordinary programs and interpreters need",
        landlock: include_str!("../../profiles/landlock/default.toml"),
    },
    Builtin {
        name: "strict",
        about: "pure computation: no sockets, nothing of its own making is executed",
        landlock: include_str!("../../profiles/landlock/strict.toml"),
    },
    Builtin {
        name: "dev",
        about: "as default, and debuggers and tracers work on its own processes",
        landlock: include_str!("../../profiles/landlock/dev.toml"),
    },
];

impl Builtin {
    pub fn by_name(name: &str) -> Result<&'static Self, ProfileError> {
        BUILTINS.iter().find(|profile| profile.name == name).ok_or_else(|| ProfileError { name: name.to_owned() })
    }

    #[must_use]
    pub fn seccomp(&self) -> Option<&'static seccomp::Builtin> {
        seccomp::builtin(self.name)
    }

    /// The profile's own Landlock policy; an empty one says nothing beyond the mounts.
    pub fn landlock(&self) -> Result<Policy, PolicyError> {
        let silent = self.landlock.lines().all(|line| line.is_empty() || line.starts_with('#'));
        if silent { Ok(Policy::default()) } else { Policy::parse(self.landlock) }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown profile `{name}`: there are default, strict and dev")]
pub struct ProfileError {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_whole() {
        for profile in &BUILTINS {
            profile.landlock().unwrap();
            assert!(profile.seccomp().is_some(), "{}", profile.name);
        }
        assert!(Builtin::by_name("nope").is_err());
    }
}

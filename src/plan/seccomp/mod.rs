//! Which system calls the payload may make: profiles as data, compiled to exact and fast filters.
//!
//! The profiles in `profiles/seccomp/` are compiled when fumehood is built (build.rs includes the compiler's
//! files) and are constants here; a profile of the user's goes through the same code at run time. Pure: to
//! install a filter is `sys::seccomp`'s work.
//!
//! Invariant: each built-in profile allows all that the one before it in [`BUILTINS`] allows.

mod bpf;
mod compile;
mod names;
mod profile;

pub use bpf::Insn;
pub use compile::{Filter, compile, compile_listed};
pub use names::Arch;
pub use profile::{Action, KernelVersion, Profile, SeccompError, Target};

use crate::error::Hint;

/// A profile that is part of fumehood.
#[derive(Debug)]
pub struct Builtin {
    pub name: &'static str,
    /// One line on whom it is for.
    pub about: &'static str,
    /// The profile's source.
    pub json: &'static str,
    /// Compiled for [`Arch::NATIVE`].
    pub filter: Filter,
}

/// `strict`, `default` and `dev`: each allows more than the one before it.
pub static BUILTINS: [Builtin; 3] = include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));

/// What is loaded beside a profile, or in place of one: compiled as those are, and chosen by nobody.
pub mod beside {
    use super::{Arch, Filter, Insn};

    include!(concat!(env!("OUT_DIR"), "/beside.rs"));
}

/// The built-in profile called `name`.
#[must_use]
pub fn builtin(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

/// A refused call in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// `None` for a number that no call has.
    pub name: Option<&'static str>,
    /// The strictest built-in profile that would let this very call through.
    pub allowed_by: Option<&'static str>,
}

/// Explains a call of [`Arch::NATIVE`] that some filter refused.
#[must_use]
pub fn explain_refused(number: u32, args: &[u64; 6]) -> Refused {
    let allows = |builtin: &&Builtin| builtin.filter.decide(number, args).permits();
    Refused { name: Arch::NATIVE.name(number), allowed_by: BUILTINS.iter().find(allows).map(|builtin| builtin.name) }
}

impl Hint for SeccompError {
    fn hint(&self) -> Option<String> {
        match self {
            SeccompError::UnknownCall { .. } => Some(
                "correct the name, or take it out of the rule: calls that no rule names get the default action".into(),
            ),
            SeccompError::TooLong(_) => Some("give calls that share their conditions one rule".into()),
            SeccompError::Json(_) | SeccompError::Profile(_) | SeccompError::Rule { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;

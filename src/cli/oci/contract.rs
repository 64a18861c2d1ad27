//! Words that other programs look for in ours. Each is an interface: to change one is to break an engine.
//!
//! - containerd's shim tells by the words of `kill` whether a container is gone, and by those of `create` and `exec`
//!   whether something is missing;
//! - dockerd makes the exit status of `docker run` from the words of a failed `create`: 126, 127 or 128;
//! - Podman takes a container for gone by the words of `state`, makes 126 or 127 of those of `create`, and finds out
//!   by those about options what a runtime can do.
//!
//! What the library itself says is there; the tests hold it to this page.

use fumehood::Error;

/// Podman asks for `restore --lsm-mount-context` without a value and looks for this.
pub fn needs_argument(flag: &str) -> Error {
    Error::new(format!("flag needs an argument: -{flag}"))
}

pub fn unknown_flag(flag: &str) -> Error {
    Error::new(format!("flag provided but not defined: -{flag}"))
}

pub fn not_boolean(text: &str, flag: &str) -> Error {
    Error::new(format!("invalid boolean value {text:?} for -{flag}: parse error"))
}

/// What command lines of containers say of a command that is none.
pub fn unknown_verb(verb: &str) -> Error {
    Error::new(format!("No help topic for '{verb}'")).with_hint("--help lists the commands")
}

/// How many words a verb takes.
pub fn arguments(verb: &str, least: usize, most: usize, given: usize) -> Option<Error> {
    let how = match (least == most, given < least) {
        (true, _) if given != least => format!("requires exactly {least} argument(s)"),
        (false, true) => format!("requires a minimum of {least} argument(s)"),
        (false, false) if given > most => format!("requires a maximum of {most} argument(s)"),
        _ => return None,
    };
    Some(Error::new(format!("{verb:?} {how}")).with_hint(format!("`{verb} --help` tells which")))
}

/// `kill` of what is no signal.
pub fn unknown_signal(text: &str) -> Error {
    Error::new(format!("unknown signal {text:?}"))
}

/// A format of `list` and `ps` that is none.
pub fn invalid_format() -> Error {
    Error::new("invalid format option").with_hint("--format is table or json")
}

/// What `--version` prints: dockerd splits the first line at `version` and looks for `commit:`; go-runc also for
/// `spec:`.
pub fn version(program: &str) -> String {
    let commit = option_env!("FUMEHOOD_COMMIT").unwrap_or("unknown");
    format!("{program} version {}\ncommit: {commit}\nspec: {}\n", env!("CARGO_PKG_VERSION"), super::SPEC_VERSION)
}

#[cfg(test)]
mod tests {
    use fumehood::{
        error::Hint,
        state::{StateError, root::ContainerId},
    };

    use super::*;

    /// As go-runc's parseVersion reads it.
    #[test]
    fn the_version_is_read_by_dockerd_and_go_runc() {
        let text = version("fumehood-oci");
        let lines: Vec<&str> = text.trim().lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let (name, number) = lines[0].split_once(" version ").unwrap();
        assert_eq!(name, "fumehood-oci");
        assert!(number.split('.').count() == 3 && number.split('.').all(|part| part.parse::<u32>().is_ok()));
        assert!(lines[1].strip_prefix("commit: ").is_some_and(|commit| !commit.is_empty()));
        let spec = lines[2].strip_prefix("spec: ").unwrap();
        assert!(spec.starts_with("1.") && spec.split('.').count() == 3);
    }

    #[test]
    fn a_container_that_is_not_there_is_told_in_the_words_that_are_looked_for() {
        // containerd (checkKillError, getLastRuntimeError), Podman (libpod/oci_conmon), runc's tests.
        let missing = StateError::ContainerMissing("box".to_owned()).into_error();
        assert!(missing.message().contains("container does not exist"), "{missing}");
        let exists = StateError::ContainerExists("box".to_owned()).into_error();
        assert!(exists.message().contains("container with given ID already exists"), "{exists}");
        let id = ContainerId::parse("a/b").unwrap_err().into_error();
        assert!(id.message().contains("invalid container ID format"), "{id}");
    }

    #[test]
    fn options_are_told_in_gos_words() {
        // Podman (pkg/checkpoint/crutils, CRRuntimeSupportsPodCheckpointRestore).
        assert_eq!(needs_argument("lsm-mount-context").message(), "flag needs an argument: -lsm-mount-context");
        assert_eq!(unknown_flag("x").message(), "flag provided but not defined: -x");
    }

    #[test]
    fn words_are_counted() {
        let text = |least, most, given| arguments("kill", least, most, given).map(|error| error.message().to_owned());
        assert_eq!(text(1, 1, 1), None);
        assert_eq!(text(1, 2, 2), None);
        assert_eq!(text(1, 1, 0).unwrap(), "\"kill\" requires exactly 1 argument(s)");
        assert_eq!(text(1, 1, 2).unwrap(), "\"kill\" requires exactly 1 argument(s)");
        assert_eq!(text(1, 2, 0).unwrap(), "\"kill\" requires a minimum of 1 argument(s)");
        assert_eq!(text(1, 2, 3).unwrap(), "\"kill\" requires a maximum of 2 argument(s)");
    }
}

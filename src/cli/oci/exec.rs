//! `exec`: one more process in a container, as a document says or as the container's own with changes.

use std::{fs::File, path::Path, process::ExitCode};

use fumehood::{Error, Result, container, error::Hint, spec::container as spec};
use oci_spec::runtime as oci;

use super::{Context, flags::Given, id, log, user};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let (root, id) = (context.root()?, id(given)?);
    let asked = container::Exec {
        root,
        id,
        detach: given.is_on("detach"),
        pid_file: given.path("pid-file"),
        console_socket: given.path("console-socket"),
        pidfd_socket: given.path("pidfd-socket"),
        preserve_fds: given.number("preserve-fds")?.unwrap_or(0),
        cgroups: cgroups(&given.texts("cgroup")?)?,
        ignore_paused: given.is_on("ignore-paused"),
        guard_binary: true,
    };
    let status = container::exec(&asked, |container| match given.path("process") {
        Some(path) => document(&path),
        None => {
            let process = changed(container.process().clone(), given)?;
            spec::check_process(&process).map_err(Hint::into_error)?;
            Ok(process)
        }
    })?;
    Ok(ExitCode::from(status as u8))
}

/// The document may be a pipe.
fn document(path: &Path) -> Result<oci::Process> {
    let file = File::open(path).map_err(|error| Error::new(format!("open {}: {error}", path.display())))?;
    let bytes = spec::read_from(file, path).map_err(Hint::into_error)?;
    let mut warnings = Vec::new();
    let process = spec::parse_process(&bytes, &mut warnings).map_err(Hint::into_error)?;
    warnings.iter().for_each(|warning| log::warn(warning));
    Ok(process)
}

/// One for all controllers, or one each.
fn cgroups(given: &[&str]) -> Result<Vec<String>> {
    let mut named: Vec<&str> = Vec::new();
    for text in given {
        let wrong = |why: &str| Err(Error::new(format!("invalid --cgroup argument {text:?}: {why}")));
        let Some((controllers, _)) = text.split_once(':') else {
            if given.len() > 1 {
                return wrong("missing <controller>: prefix");
            }
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return wrong("empty <controller> prefix");
            }
            if named.contains(&controller) {
                return wrong(&format!("controller {controller} specified multiple times"));
            }
            named.push(controller);
        }
    }
    Ok(given.iter().map(|text| (*text).to_owned()).collect())
}

/// The container's own process with what the options say otherwise.
fn changed(process: Option<oci::Process>, given: &Given) -> Result<oci::Process> {
    let args = given.words.get(1..).filter(|args| !args.is_empty());
    let args =
        args.ok_or_else(|| Error::new("exec args cannot be empty").with_hint("exec <container-id> <command>"))?;
    let utf8 = |word: &std::ffi::OsString| {
        let text = word.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::new(format!("the argument `{}` is not UTF-8", word.display())))
    };
    let mut process = process.unwrap_or_default();
    process.set_args(Some(args.iter().map(utf8).collect::<Result<_>>()?));
    // The first process's terminal is not this one's.
    process.set_terminal(Some(given.is_on("tty")));
    if let Some(cwd) = given.path("cwd") {
        process.set_cwd(cwd);
    }
    if let Some(profile) = given.text("apparmor")?.filter(|text| !text.is_empty()) {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = given.text("process-label")?.filter(|text| !text.is_empty()) {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if given.value("no-new-privs").is_some() {
        process.set_no_new_privileges(Some(given.is_on("no-new-privs")));
    }
    let variables = given.texts("env")?;
    if !variables.is_empty() {
        process.set_env(Some(merged(process.env().clone().unwrap_or_default(), &variables)));
    }
    let capabilities = given.texts("cap")?;
    if !capabilities.is_empty() {
        let sets = process.capabilities().clone().map_or_else(no_capabilities, Ok)?;
        process.set_capabilities(Some(with_capabilities(sets, &capabilities)?));
    }
    let user = process.user_mut();
    if let Some(text) = given.text("user")? {
        let (uid, gid) = user::parse(text)?;
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    let groups = given.texts("additional-gids")?;
    if !groups.is_empty() {
        let mut all = user.additional_gids().clone().unwrap_or_default();
        for text in groups.iter().flat_map(|text| text.split(',')) {
            let gid = user::id(text);
            all.push(gid.ok_or_else(|| Error::new(format!("--additional-gids: {text:?} is no group's number")))?);
        }
        user.set_additional_gids(Some(all));
    }
    Ok(process)
}

/// Those given take the place of those of the same name.
fn merged(mut env: Vec<String>, given: &[&str]) -> Vec<String> {
    let name = |assignment: &str| assignment.split('=').next().unwrap_or_default().to_owned();
    for assignment in given {
        let named = name(assignment);
        env.retain(|known| name(known) != named);
        env.push((*assignment).to_owned());
    }
    env
}

/// Not the crate's default, which has three.
fn no_capabilities() -> Result<oci::LinuxCapabilities> {
    serde_json::from_str("{}").map_err(|error| Error::new(error.to_string()))
}

/// Added to what a program can have and has; to what it passes on only where the container's passes on some.
fn with_capabilities(mut sets: oci::LinuxCapabilities, given: &[&str]) -> Result<oci::LinuxCapabilities> {
    let mut more = oci::Capabilities::new();
    for name in given.iter().flat_map(|text| text.split(',')) {
        let quoted = serde_json::Value::from(name);
        let known: std::result::Result<oci::Capability, _> = serde_json::from_value(quoted);
        more.insert(known.map_err(|_| Error::new(format!("--cap: unknown capability {name:?}")))?);
    }
    let with = |set: &Option<oci::Capabilities>| Some(set.iter().flatten().chain(&more).copied().collect());
    let passes_on = sets.inheritable().as_ref().is_some_and(|set| !set.is_empty());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    if passes_on {
        // An ambient capability is inheritable, too (capabilities(7)).
        let (inheritable, ambient) = (with(sets.inheritable()), with(sets.ambient()));
        sets.set_inheritable(inheritable).set_ambient(ambient);
    }
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::super::{flags, table::VERBS};
    use super::*;

    fn own() -> oci::Process {
        serde_json::from_str(
            r#"{"args":["init"],"cwd":"/srv","terminal":true,"env":["PATH=/bin","A=1"],"noNewPrivileges":true,
                "user":{"uid":5,"gid":6,"additionalGids":[7]},
                "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]}}"#,
        )
        .unwrap()
    }

    fn read(line: &[&str]) -> Result<oci::Process> {
        let verb = VERBS.iter().find(|verb| verb.name == "exec").unwrap();
        let mut words = line.iter().map(Into::into).collect::<Vec<_>>().into_iter();
        changed(Some(own()), &flags::parse(verb.flags, &mut words, verb.until)?)
    }

    #[test]
    fn what_is_not_said_is_as_the_containers_own() {
        let process = read(&["id", "sh", "-c", "x"]).unwrap();
        assert_eq!(process.args().as_deref().unwrap(), ["sh", "-c", "x"]);
        assert_eq!((process.terminal(), process.cwd().to_str().unwrap()), (Some(false), "/srv"));
        assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!(process.capabilities(), own().capabilities());
        assert_eq!(process.env(), own().env());
    }

    #[test]
    fn what_is_said_takes_its_place() {
        let line = ["-t", "--cwd", "/tmp", "-e", "A=2", "-e", "B=", "-u", "0", "-g", "8,9", "-g", "10", "id", "x"];
        let process = read(&line).unwrap();
        assert_eq!(process.env().as_deref().unwrap(), ["PATH=/bin", "A=2", "B="]);
        assert_eq!((process.terminal(), process.cwd().to_str().unwrap()), (Some(true), "/tmp"));
        assert_eq!((process.user().uid(), process.user().gid()), (0, 6));
        assert_eq!(process.user().additional_gids().as_deref().unwrap(), [7, 8, 9, 10]);
        assert_eq!(read(&["--user=3:4", "id", "x"]).unwrap().user().gid(), 4);
        assert_eq!(read(&["--no-new-privs=false", "id", "x"]).unwrap().no_new_privileges(), Some(false));
    }

    #[test]
    fn cve_2022_29162_added_capabilities_are_not_inheritable() {
        let process = read(&["--cap", "CAP_CHOWN,CAP_FOWNER", "id", "x"]).unwrap();
        let sets = process.capabilities().as_ref().unwrap();
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert_eq!(set.as_ref().unwrap().len(), 3);
        }
        assert_eq!((sets.inheritable(), sets.ambient()), (&None, &None));
        assert_eq!(
            read(&["--cap", "CAP_FLY", "id", "x"]).unwrap_err().message(),
            "--cap: unknown capability \"CAP_FLY\""
        );
    }

    #[test]
    fn groups_are_named_once() {
        for given in [&["a/b"][..], &["cpu,cpuacct:a", "memory:b"], &[":a"][..0]] {
            assert_eq!(cgroups(given).unwrap(), given);
        }
        for given in [&["a", "b"][..], &["cpu:a", "b"], &[":a"], &["cpu,:a"], &["cpu:a", "memory,cpu:b"]] {
            assert!(cgroups(given).is_err(), "{given:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [&["id"][..], &["-u", "name", "id", "x"], &["-u", "", "id", "x"], &["-g", "-1", "id", "x"]] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }
}

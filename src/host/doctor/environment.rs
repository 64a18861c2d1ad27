//! Around the sandbox: what this host is, whose ids may be used, which programs there are.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Check,
    child::{Failure, Why, in_child, with_user_namespace},
    os_name,
};
use crate::{
    host::{Granted, Host, circumstances::Circumstances, explain::refused_ids},
    launch::ids::{INSTALL, Which, is_powerless, write_through_helpers},
    plan::ids::{Map, subordinate},
    request::gvisor::{Gvisor, Platform},
    sys::probe,
};

/// What people most want to run, by the program's name.
const INTERPRETERS: [&str; 12] =
    ["python3", "node", "ruby", "perl", "bash", "php", "lua", "Rscript", "julia", "java", "go", "gcc"];

const ENGINES: [&str; 7] = ["docker", "podman", "containerd", "nerdctl", "crio", "runc", "crun"];

/// Below this a capture of files or an image will soon fail.
const LITTLE_SPACE: u64 = 1 << 30;

pub(super) fn place(host: &Host, around: &Circumstances, checks: &mut Vec<Check>) {
    let release = probe::kernel_release().unwrap_or_default();
    let os = os_name().unwrap_or_else(|| "unknown distribution".to_owned());
    let who = match (host.privileged, host.initial_user_namespace, host.uid) {
        (true, true, _) => "root".to_owned(),
        (true, false, _) => "root of a nested user namespace".to_owned(),
        (false, _, 0) => "root without CAP_SYS_ADMIN".to_owned(),
        (false, _, uid) => format!("uid {uid}"),
    };
    checks.push(Check::info("host", format!("Linux {release} {}, {os}, as {who}", std::env::consts::ARCH)));
    if around.wsl && host.kernel.major < 5 {
        let check = Check::broken("wsl", "WSL 1 has no Linux kernel to make sandboxes with");
        checks.push(check.or_fix("wsl --set-version DISTRIBUTION 2, in Windows"));
    } else if around.wsl {
        checks.push(Check::info("wsl", "runs in WSL 2"));
    }
    if let Some(container) = around.container {
        let filter = if around.seccomp_filtered { ", under its seccomp filter" } else { "" };
        checks.push(Check::info(
            "container",
            format!("inside a {} container, by the marks it left{filter}", container.name()),
        ));
    }
}

pub(super) fn ids(host: &Host, around: &Circumstances, checks: &mut Vec<Check>) {
    checks.push(if host.privileged {
        let count: u64 = host.ids.uids.iter().map(|range| u64::from(range.count)).sum();
        if count > 65536 {
            Check::ok("ids", "any user and group id can be mapped")
        } else {
            Check::degraded("ids", format!("--user is limited to the ids of this user namespace: {count}"))
                .or_fix("start the outer namespace with a range of ids (podman: --userns=auto:size=65536)")
        }
    } else {
        subids(host, around)
    });
}

/// The ranges that /etc/subuid and /etc/subgid grant, tried with newuidmap and newgidmap on a namespace, as a launch
/// does it.
fn subids(host: &Host, around: &Circumstances) -> Check {
    const COST: &str = "--user takes root, 1000 and your own ids only";
    let granted = Granted::read(host.uid);
    let users = subordinate(host.uid, &granted.uids);
    let groups = subordinate(host.gid, &granted.gids);
    if users.len() == 1 || groups.len() == 1 {
        let check =
            Check::degraded("ids", format!("{COST}: no range for uid {} in /etc/subuid and /etc/subgid", host.uid));
        return check.or_fix(granted.fix());
    }
    let (Some(newuidmap), Some(newgidmap)) = (Which::Users.find_helper(), Which::Groups.find_helper()) else {
        let check =
            Check::degraded("ids", format!("{COST}: ids are granted, but newuidmap and newgidmap are not installed"));
        return check.or_fix(INSTALL);
    };
    let trial = in_child(|| {
        with_user_namespace(|pid| {
            write_through_helpers(&users, &groups, pid).map_err(|error| Failure {
                stage: "map them".to_owned(),
                object: error.to_string(),
                why: Why::Refused,
            })
        })
    });
    let ranges = |lines: &[Map], kind: &str| {
        let range = |line: &Map| format!("{} {kind} from {}, ", line.count, line.outside);
        lines.iter().skip(1).map(range).collect::<String>()
    };
    let good = format!(
        "{}{}by {} and {}",
        ranges(&users, "uids"),
        ranges(&groups, "gids"),
        newuidmap.display(),
        newgidmap.display()
    );
    let check = Check::of_trial(around, "ids", trial, &good).at_most_degraded(COST);
    let powerless = is_powerless(&newuidmap) || is_powerless(&newgidmap);
    match refused_ids(around, powerless) {
        Some(fix) => check.or_fix(fix),
        None => check,
    }
}

pub(super) fn tools(checks: &mut Vec<Check>) {
    let found = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| find_program(name).is_some()).collect()
    };
    // Only what lies in /usr can be seen from inside.
    let inside = |name: &&str| ["/usr/bin", "/usr/local/bin"].iter().any(|dir| is_program(&Path::new(dir).join(name)));
    let interpreters: Vec<_> = INTERPRETERS.into_iter().filter(|name| inside(name)).collect();
    checks.push(if interpreters.is_empty() {
        Check::degraded("runtimes", "the host's /usr has no interpreter: only --image brings one")
    } else {
        Check::info("runtimes", format!("in the host's /usr: {}", interpreters.join(" ")))
    });
    checks.push(gvisor());
    let engines = found(&ENGINES);
    checks.push(Check::info("engines", if engines.is_empty() { "none found".to_owned() } else { engines.join(" ") }));
    checks.push(space());
}

fn gvisor() -> Check {
    let Some(program) = find_program("runsc") else {
        return Check::info("gvisor", "runsc is not installed: --isolation gvisor is refused");
    };
    let output = Command::new(&program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    match output.ok().filter(|output| output.status.success()).and_then(|output| parse_runsc_version(&output.stdout)) {
        Some(version) => {
            let known = Gvisor::platforms(&program).into_iter().map(Platform::name);
            let platforms: String = known.map(|name| format!(" {name}")).collect();
            let platforms = if platforms.is_empty() { platforms } else { format!(", platforms{platforms}") };
            let lacks = lacks(&version, &platforms);
            Check::ok("gvisor", format!("{} {version}{platforms}{lacks}", program.display()))
        }
        None => Check::degraded(
            "gvisor",
            format!("--isolation gvisor will fail: {} --version gives none", program.display()),
        )
        .or_fix("reinstall runsc: https://gvisor.dev/docs/user_guide/install/"),
    }
}

/// What that release cannot do and later ones can, as far as it was tried.
fn lacks(version: &str, platforms: &str) -> String {
    // AT_NO_AUTOMOUNT, which coreutils give from 9 on.
    const KNOWS_NO_AUTOMOUNT: u32 = 20_230_000;
    let date = version.split(|letter: char| !letter.is_ascii_digit()).find(|part| part.len() == 8);
    let date: u32 = date.and_then(|date| date.parse().ok()).unwrap_or(u32::MAX);
    let lacking: Vec<&str> = [
        (!platforms.is_empty() && !platforms.contains("systrap"), "the platform systrap: ptrace, which is slower"),
        (date < KNOWS_NO_AUTOMOUNT, "`ls` and `stat` of coreutils 9"),
        (date < KNOWS_NO_AUTOMOUNT, "saving a container that goes on"),
    ]
    .into_iter()
    .filter_map(|(lacks, what)| lacks.then_some(what))
    .collect();
    if lacking.is_empty() { String::new() } else { format!("; it lacks {}", lacking.join(", ")) }
}

/// `runsc version release-20250820.0` and further lines.
fn parse_runsc_version(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let version = text.lines().next()?.strip_prefix("runsc version ")?.trim();
    (!version.is_empty() && version.len() <= 64).then(|| version.to_owned())
}

fn space() -> Check {
    let place = std::env::temp_dir();
    let Ok(status) = nix::sys::statvfs::statvfs(&place) else {
        return Check::degraded("space", format!("{} is not there: files cannot be staged", place.display()))
            .or_fix(format!("mkdir -m 1777 {}", place.display()));
    };
    let free = status.blocks_available().saturating_mul(status.fragment_size());
    let detail = format!("{:.1} GiB free in {}", free as f64 / (1u64 << 30) as f64, place.display());
    if free < LITTLE_SPACE {
        Check::degraded("space", format!("files and images may not fit: {detail}")).or_fix("free some, or set TMPDIR")
    } else {
        Check::info("space", detail)
    }
}

/// The first program of that name on PATH, with the system directories that ordinary users' PATHs lack.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_releases_of_runsc_lack_what_later_ones_have() {
        let old = lacks("0.0~20221219.0", ", platforms kvm ptrace");
        assert!(old.contains("systrap") && old.contains("coreutils 9"), "{old}");
        for new in ["release-20250820.0", "unknown"] {
            assert_eq!(lacks(new, ", platforms systrap kvm ptrace"), "");
        }
    }

    #[test]
    fn runsc_versions() {
        let output = b"runsc version release-20250820.0\nspec: 1.1.0-rc.1\n";
        assert_eq!(parse_runsc_version(output).as_deref(), Some("release-20250820.0"));
        for bad in [&b""[..], b"runsc version ", b"error", b"\xff\xfe", &[b'x'; 1000]] {
            assert_eq!(parse_runsc_version(bad), None);
        }
    }

    #[test]
    fn programs_are_files_that_run() {
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program("no-such-program-here"), None);
        assert!(!is_program(Path::new("/usr")) && !is_program(Path::new("/etc/passwd")));
    }
}

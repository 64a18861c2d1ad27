//! `doctor`: tries out, in child processes, everything a sandbox is made of, and says of each part whether
//! it works, what it costs if not, and the one line that mends it.
//!
//! Nothing is concluded from a version or a configuration file that can be tried instead; those only word
//! the explanation. Every trial cleans up behind itself. Used by `fumehood doctor`; never while launching.

mod cgroup;
mod child;
mod confinement;
mod environment;
mod namespaces;
mod network;

use serde::Serialize;

use self::child::Trial;
use super::{
    Host, KernelVersion, Layout,
    circumstances::{self, Circumstances},
    explain::{Cause, explain},
};
use crate::sys::probe;

/// How one part of the host fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// Works, at a cost that the detail names.
    Degraded,
    /// No sandbox can run.
    Broken,
    /// Good to know; nothing depends on it.
    Info,
}

/// One line of the doctor's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable, for scripts: `user-namespace`, `cgroup`….
    pub name: &'static str,
    pub status: Status,
    pub detail: String,
    /// The one line to type, or to change.
    pub fix: Option<String>,
}

/// What `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// A default `fumehood run` works here.
    pub ready: bool,
    pub checks: Vec<Check>,
    pub host: Facts,
}

/// Who and where the report was made.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    pub os: Option<String>,
    pub kernel: KernelVersion,
    pub kernel_release: String,
    pub architecture: &'static str,
    pub uid: u32,
    pub gid: u32,
    pub privileged: bool,
    pub initial_user_namespace: bool,
    pub landlock_abi: u32,
    /// The kind of container around us, by the marks it left.
    pub container: Option<&'static str>,
    pub wsl: bool,
    pub layout: Layout,
}

/// Examines the host. Takes some tens of milliseconds and starts some thirty short-lived processes.
#[must_use]
pub fn examine() -> Report {
    let host = Host::probe();
    let around = Circumstances::read();
    let mut checks = Vec::new();
    environment::place(&host, &around, &mut checks);
    let can_make_namespaces = namespaces::check(&around, &mut checks);
    checks.push(namespaces::pidfd(&around));
    confinement::check(&around, &mut checks);
    cgroup::check(&around, &mut checks);
    if can_make_namespaces {
        network::check(&around, &mut checks);
        environment::ids(&host, &around, &mut checks);
    }
    environment::tools(&mut checks);
    Report { ready: checks.iter().all(|check| check.status != Status::Broken), checks, host: facts(&host, &around) }
}

fn facts(host: &Host, around: &Circumstances) -> Facts {
    Facts {
        os: os_name(),
        kernel: host.kernel,
        kernel_release: probe::kernel_release().unwrap_or_default(),
        architecture: std::env::consts::ARCH,
        uid: host.uid,
        gid: host.gid,
        privileged: host.privileged,
        initial_user_namespace: host.initial_user_namespace,
        landlock_abi: host.landlock_abi,
        container: around.container.map(circumstances::Container::name),
        wsl: around.wsl,
        layout: Layout::probe(),
    }
}

fn os_name() -> Option<String> {
    ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(circumstances::read)
        .and_then(|text| circumstances::parse_os_release(&text))
}

impl Check {
    fn new(name: &'static str, status: Status, detail: impl Into<String>) -> Self {
        // Details quote the host's files; a terminal must not obey them.
        let detail = detail.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { name, status, detail, fix: None }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, detail)
    }

    fn info(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Info, detail)
    }

    fn degraded(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Degraded, detail)
    }

    fn broken(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Broken, detail)
    }

    /// `good` if the trial passed; else broken, with the failed step and what stands behind it.
    fn of_trial(around: &Circumstances, name: &'static str, trial: Trial, good: &str) -> Self {
        let Err(failure) = trial else {
            return Self::ok(name, good);
        };
        let cause = failure.errno().and_then(|errno| explain(around, &failure.stage, &failure.object, errno));
        match cause {
            Some(Cause { why, fix }) => Self { fix, ..Self::broken(name, format!("{why} ({failure})")) },
            None => Self::broken(name, failure.to_string()),
        }
    }

    /// For a part that the main job can do without, at this cost.
    fn at_most_degraded(self, cost: &str) -> Self {
        match self.status {
            Status::Broken => Self { status: Status::Degraded, detail: format!("{cost}: {}", self.detail), ..self },
            _ => self,
        }
    }

    /// Gives a check that isn't fine a fix, unless it has a better one.
    fn or_fix(mut self, fix: impl Into<String>) -> Self {
        if matches!(self.status, Status::Degraded | Status::Broken) && self.fix.is_none() {
            self.fix = Some(fix.into());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::{child::step, *};

    #[test]
    fn an_examination_is_whole_and_consistent() {
        let report = examine();
        let mut names: Vec<_> = report.checks.iter().map(|check| check.name).collect();
        assert_eq!(names[0], "host");
        assert!(["user-namespace", "landlock", "seccomp", "cgroup", "space"].iter().all(|n| names.contains(n)));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), report.checks.len(), "a name is used twice");
        assert_eq!(report.ready, !report.checks.iter().any(|check| check.status == Status::Broken));
        for check in &report.checks {
            assert!(!check.detail.is_empty() && !check.detail.contains('\n'), "{check:?}");
            assert!(check.fix.is_none() || check.status != Status::Ok, "{check:?}");
        }
    }

    #[test]
    fn a_failed_trial_names_step_cause_and_fix() {
        let ubuntu = Circumstances { apparmor_userns: true, uid: 1000, ..Default::default() };
        let trial = step("write", "uid_map", Err(Errno::EPERM));
        let check = Check::of_trial(&ubuntu, "x", trial, "fine");
        assert_eq!(check.status, Status::Broken);
        assert!(check.detail.starts_with("kernel.apparmor_restrict_unprivileged_userns is 1"));
        assert!(check.detail.ends_with("(write uid_map: operation not permitted)"));
        assert!(check.fix.is_some_and(|fix| fix.contains("userns,")));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(Check::info("x", "a\x1b[31m\nb").detail, "a [31m b");
    }
}

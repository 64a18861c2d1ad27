//! The kernel's own files about a running sandbox, on a host whose whole cgroup tree is v2: what was asked for is read
//! back where it counts.
//!
//! Few machines that tests run on are such a host: on the others, these tests say so and pass; `scripts/vm` boots one
//! and promises it with `FUMEHOOD_TEST_CGROUP=v2`, and there it is a failure if they can't run.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use fumehood::cgroup::{Controller, Hierarchy};

use super::{
    Done, Run, Who,
    host::{self, eventually},
};

/// Whether `who` can hold every limit by cgroup v2, as the tests' own process stands; says why not.
pub fn here(test: &str, who: Who) -> bool {
    let hierarchy = Hierarchy::detect();
    let holds = |controller| hierarchy.can(controller);
    let why = match &hierarchy {
        _ if who.ids().is_some() => "the tests run as root, and this user has no cgroup delegated to it".to_owned(),
        Hierarchy::None { why } => why.clone(),
        Hierarchy::V1(_) => "the controllers are in cgroup v1 here".to_owned(),
        Hierarchy::V2(_) if [Controller::Memory, Controller::Pids, Controller::Cpu].into_iter().all(holds) => {
            return true;
        }
        Hierarchy::V2(_) => "not every controller is in the v2 tree here".to_owned(),
    };
    elsewhere(test, who, &why)
}

/// Whether `who` has a systemd besides, that makes scopes for them.
pub fn systemd_here(test: &str, who: Who) -> bool {
    here(test, who) && {
        let user = || std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("systemd/private"));
        let socket = if who == Who::Root { Some("/run/systemd/private".into()) } else { user() };
        socket.is_some_and(|socket| socket.exists()) || elsewhere(test, who, "no systemd of theirs is running")
    }
}

fn elsewhere(test: &str, who: Who, why: &str) -> bool {
    // Not with eprintln!, which the harness keeps to itself when a test passes.
    _ = writeln!(std::io::stderr(), "ELSEWHERE {test} as {who:?}: {why}; scripts/vm runs it");
    assert!(!promised(), "{test}: {why}");
    false
}

/// Whether this is the machine of `scripts/vm`, where nothing may be missing, and which is forgotten afterwards.
pub fn promised() -> bool {
    std::env::var_os("FUMEHOOD_TEST_CGROUP").is_some_and(|kind| kind == "v2")
}

/// A directory of the cgroup file system.
#[derive(Debug)]
pub struct Group(pub PathBuf);

impl Group {
    #[track_caller]
    pub fn read(&self, file: &str) -> String {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim_end().to_owned()
    }

    #[track_caller]
    pub fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    #[track_caller]
    pub fn number(&self, file: &str) -> u64 {
        self.read(file).parse().unwrap_or_else(|_| panic!("{}/{file} is no number", self.0.display()))
    }

    /// The value of a line `KEY VALUE`.
    #[track_caller]
    pub fn count(&self, file: &str, key: &str) -> u64 {
        let text = self.read(file);
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {key} in {}/{file}: {text}", self.0.display()))
    }

    pub fn pids(&self) -> Vec<i32> {
        self.read("cgroup.procs").lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// A sandbox that runs, and goes on at the end of its input.
#[derive(Debug)]
pub struct Running {
    pub run: Run,
    pub child: Child,
    pub leaf: Group,
}

impl Running {
    /// Returns once it has a cgroup with a program in it.
    #[track_caller]
    pub fn start(run: Run) -> Self {
        Self::start_all(vec![run]).remove(0)
    }

    /// The same for many, which start all at once.
    #[track_caller]
    pub fn start_all(runs: Vec<Run>) -> Vec<Self> {
        let spawn = |run: Run| {
            let run = run.arg("--interactive");
            let mut command = run.command();
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            (command.spawn().unwrap(), run)
        };
        let started: Vec<_> = runs.into_iter().map(spawn).collect();
        let mut all: Vec<Self> = Vec::new();
        for (child, run) in started {
            let beside = all.first().map(|first| first.leaf.0.with_file_name(&run.name));
            all.push(Self::find(child, run, beside.as_deref()));
        }
        all
    }

    #[track_caller]
    fn find(child: Child, run: Run, beside: Option<&Path>) -> Self {
        let mut leaf = None;
        let found = eventually(|| {
            leaf = beside.map_or_else(|| host::cgroups(&run.name).pop(), |path| Some(path.to_owned()));
            let procs = leaf.as_ref().and_then(|leaf| fs::read_to_string(leaf.join("cgroup.procs")).ok());
            // The init, and what it started.
            procs.is_some_and(|procs| procs.lines().count() >= 2)
        });
        match leaf {
            Some(leaf) if found => Self { run, child, leaf: Group(leaf) },
            leaf => panic!("it does not run in {leaf:?}: {}", run.wait_for(child)),
        }
    }

    /// Ends its input, waits for it, and holds it to what every run is held to.
    #[track_caller]
    pub fn end(self) -> Done {
        let done = self.run.wait_for(self.child);
        done.check_nothing_left();
        assert!(!self.leaf.0.exists(), "{done}");
        done
    }

    /// The group that all sandboxes of this one's user are in.
    pub fn parent(&self) -> Group {
        Group(self.leaf.0.parent().map(Path::to_owned).unwrap())
    }
}

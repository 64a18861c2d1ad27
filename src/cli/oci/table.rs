//! Every verb with its options: those of runc and of crun together.

use std::process::ExitCode;

use fumehood::Result;

use super::{
    Context, FAILURE, checkpoint, create, delete, egress, events, exec, features,
    flags::{Flag, Given, Until, switch, value},
    freeze, kill, list, ps, spec, start, state, update,
};

/// A command, and what it takes.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    /// What follows the options.
    pub words: &'static str,
    pub about: &'static str,
    /// How many words it takes.
    pub least: usize,
    pub most: usize,
    pub until: Until,
    pub flags: &'static [Flag],
    /// Its status when it fails.
    pub failure: u8,
    pub run: fn(&Context, &Given) -> Result<ExitCode>,
}

/// runc's, which lets a caller of `exec` tell our failure from the program's.
const EXEC_FAILURE: u8 = 255;
const ID: &str = "<container-id>";

const fn verb(
    name: &'static str,
    words: &'static str,
    about: &'static str,
    (least, most): (usize, usize),
    flags: &'static [Flag],
    run: fn(&Context, &Given) -> Result<ExitCode>,
) -> Verb {
    Verb { name, words, about, least, most, until: Until::TheEnd, flags, failure: FAILURE, run }
}

impl Verb {
    const fn until(mut self, until: Until) -> Self {
        self.until = until;
        self
    }

    const fn failing_with(mut self, status: u8) -> Self {
        self.failure = status;
        self
    }
}

pub static GLOBALS: &[Flag] = &[
    value("root", "DIR", "where the state of containers is kept"),
    value("log", "FILE", "where errors go besides standard error: a file, file:, journald: or syslog:"),
    value("log-format", "FORMAT", "text (default) or json"),
    value("log-level", "LEVEL", "error (default), warning, info or debug"),
    switch("debug", "as --log-level=debug"),
    switch("systemd-cgroup", "as --cgroup-manager=systemd"),
    value("cgroup-manager", "MANAGER", "cgroupfs (default), systemd or disabled"),
    value("rootless", "WHEN", "true, false or auto (default): pass over control groups that may not be changed"),
    value("criu", "PATH", "the criu to checkpoint and restore with; the first in PATH by default"),
    value("gvisor-platform", "PLATFORM", "auto (default), systrap, kvm or ptrace, for containers on gVisor's kernel"),
    value("egress", "POLICY", "what the networks of containers let through: packages,allow=example.com,publish=80"),
    switch("egress-from-host", "a filtered container to which nobody gives a network reaches out by the host's"),
    value("egress-log", "FILE", "a line of JSON for each connection of containers whose network is filtered"),
    switch("version", "print the version").short(b'v'),
];

const BUNDLE: Flag = value("bundle", "DIR", "the directory of the bundle; this one by default").short(b'b');
const CONSOLE_SOCKET: Flag = value("console-socket", "SOCKET", "where the terminal's master end is sent to");
const PIDFD_SOCKET: Flag = value("pidfd-socket", "SOCKET", "where a descriptor of the process is sent to");
const PID_FILE: Flag = value("pid-file", "FILE", "where the process's number is written to");
const PRESERVE_FDS: Flag = value("preserve-fds", "N", "pass on N descriptors besides the first three");
const NO_PIVOT: Flag = switch("no-pivot", "do not change the root by pivot_root(2): for a root on a RAM disk");
const NO_KEYRING: Flag = switch("no-new-keyring", "keep the caller's session keyring");
const NO_SUBREAPER: Flag = switch("no-subreaper", "");
const CONFIG: Flag = value("config", "FILE", "the specification; config.json in the bundle by default").short(b'f');
const DETACH: Flag = switch("detach", "do not wait for the program").short(b'd');
const FORMAT: Flag = value("format", "FORMAT", "table (default) or json").short(b'f');
const REGEX: Flag = switch("regex", "every container whose name the regular expression is found in").short(b'r');

pub static VERBS: &[Verb] = &[
    verb(
        "create",
        ID,
        "make a container of a bundle; its program waits for `start`",
        (1, 1),
        &[BUNDLE, CONFIG, CONSOLE_SOCKET, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE_FDS, NO_SUBREAPER],
        create::create,
    ),
    verb("start", ID, "let a created container's program go", (1, 1), &[], start::run),
    verb("state", ID, "print what a container is doing, as JSON", (1, 1), &[], state::run),
    verb(
        "kill",
        "<container-id> [signal]",
        "send a signal, SIGTERM by default, to a container's first process",
        (1, 2),
        &[switch("all", "to all of its processes").short(b'a'), REGEX],
        kill::run,
    ),
    verb(
        "delete",
        ID,
        "remove what a stopped container holds",
        (1, 1),
        &[switch("force", "kill it first; one that is not there is no error").short(b'f'), REGEX],
        delete::run,
    ),
    verb(
        "exec",
        "<container-id> <command> [argument...]",
        "run one more program in a container",
        (1, usize::MAX),
        &[
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            value("cwd", "DIR", "its working directory"),
            value("env", "NAME=VALUE", "a variable of its environment; may be given more than once").short(b'e'),
            switch("tty", "give it a terminal").short(b't'),
            value("user", "UID[:GID]", "who it runs as").short(b'u'),
            value("additional-gids", "GID", "a group of its; may be given more than once").short(b'g'),
            value("process", "FILE", "the process, as in a config.json").short(b'p'),
            DETACH,
            PID_FILE,
            value("process-label", "LABEL", "its SELinux label"),
            value("apparmor", "PROFILE", "its AppArmor profile"),
            switch("no-new-privs", "it cannot gain privileges"),
            value("cap", "CAP", "a capability of its; may be given more than once").short(b'c'),
            PRESERVE_FDS,
            value("cgroup", "[CONTROLLER:]PATH", "a control group below the container's to run it in"),
            switch("ignore-paused", "also in a paused container, where it waits"),
            NO_SUBREAPER,
        ],
        exec::run,
    )
    .until(Until::BehindFirstWord)
    .failing_with(EXEC_FAILURE),
    verb(
        "run",
        ID,
        "create a container, start it, and delete it when it ends",
        (1, 1),
        &[
            BUNDLE,
            CONFIG,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE_FDS,
            NO_SUBREAPER,
            DETACH,
            switch("keep", "do not delete it"),
        ],
        create::run,
    ),
    verb(
        "list",
        "",
        "list the containers",
        (0, 0),
        &[FORMAT, switch("quiet", "their names alone").short(b'q')],
        list::run,
    ),
    verb(
        "ps",
        "<container-id> [ps option...]",
        "list the processes of a container, as the host numbers them",
        (1, usize::MAX),
        &[FORMAT],
        ps::run,
    )
    .until(Until::BehindFirstWord),
    verb("pause", ID, "stop all processes of a container where they are", (1, 1), &[], freeze::pause),
    verb("resume", ID, "let a paused container go on", (1, 1), &[], freeze::resume),
    verb(
        "update",
        ID,
        "change the limits of a container",
        (1, 1),
        &[
            value("resources", "FILE", "the limits, as in a config.json; - for standard input").short(b'r'),
            value("blkio-weight", "N", "weight of block I/O, 10 to 1000"),
            value("cpu-period", "MICROS", "period over which --cpu-quota counts"),
            value("cpu-quota", "MICROS", "CPU time in a period"),
            value("cpu-burst", "MICROS", "unused CPU time that may be saved up"),
            value("cpu-share", "N", "weight of CPU time"),
            value("cpu-rt-period", "MICROS", "period over which --cpu-rt-runtime counts"),
            value("cpu-rt-runtime", "MICROS", "realtime CPU time in a period"),
            value("cpuset-cpus", "LIST", "the CPUs to run on"),
            value("cpuset-mems", "LIST", "the memory nodes to use"),
            value("cpu-idle", "0|1", "1: run when nothing else wants to"),
            value("kernel-memory", "BYTES", ""),
            value("kernel-memory-tcp", "BYTES", ""),
            value("memory", "BYTES", "limit of memory; -1 for none"),
            value("memory-reservation", "BYTES", "memory that is given back when it becomes scarce"),
            value("memory-swap", "BYTES", "limit of memory and swap together; -1 for none"),
            value("pids-limit", "N", "limit of processes; -1 for none"),
            value("l3-cache-schema", "SCHEMA", "Intel RDT: share of the L3 cache"),
            value("mem-bw-schema", "SCHEMA", "Intel RDT: share of the memory bandwidth"),
        ],
        update::run,
    ),
    verb(
        "events",
        ID,
        "print what a container uses, and when it runs out of memory, a JSON line each",
        (1, 1),
        &[
            switch("stats", "what it uses now, and no more"),
            value("interval", "DURATION", "how long between two lines; 5s by default"),
        ],
        events::run,
    ),
    verb(
        "egress",
        "<container-id> [policy]",
        "print what the network of a container lets through, or change it",
        (1, 2),
        &[],
        egress::run,
    ),
    verb("features", "", "print what this runtime can do, as JSON", (0, 0), &[], features::run),
    verb(
        "spec",
        "",
        "write a config.json to begin with",
        (0, 0),
        &[BUNDLE, switch("rootless", "for a user without privilege")],
        spec::run,
    ),
    verb("checkpoint", ID, "save a running container, with CRIU", (1, 1), checkpoint::SAVE, checkpoint::save),
    verb("restore", ID, "bring back a saved container, with CRIU", (1, 1), checkpoint::RESTORE, checkpoint::restore),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verb_has_an_option_twice() {
        for verb in VERBS.iter().map(|verb| (verb.name, verb.flags)).chain([("globals", GLOBALS)]) {
            let (name, flags) = verb;
            for (index, flag) in flags.iter().enumerate() {
                let same =
                    |other: &&Flag| other.long == flag.long || (other.short.is_some() && other.short == flag.short);
                assert!(!flags[..index].iter().any(|other| same(&other)), "{name}: {}", flag.long);
                assert!(flag.short != Some(b'h') && flag.long != "help", "{name}");
            }
        }
    }

    /// reference: runc 1.1 to 1.4, crun 1.29, go-runc, conmon, Podman, containerd.
    #[test]
    fn every_option_that_an_engine_sends_is_taken() {
        let lines = [
            "create --bundle /b --pid-file /b/init.pid --console-socket /s --pidfd-socket /s --no-pivot \
             --no-new-keyring --preserve-fds 3 id",
            "create -b /b -f other.json id",
            "run -d --bundle /b --keep id",
            "start id",
            "state id",
            "delete --force id",
            "delete id",
            "kill --all id 9",
            "kill id SIGTERM",
            "pause id",
            "resume id",
            "ps --format json id",
            "ps --format table id -ef",
            "exec --process /p --detach --pid-file /f --console-socket /s --preserve-fds 2 id",
            "exec -t --cwd /x --user 0:0 -e A=1 --cap CAP_KILL --cgroup /x --apparmor a --process-label l -g 1 \
             --no-new-privs=false --ignore-paused -no-subreaper id sh -c -x",
            "update --resources=- id",
            "update --resources /f id",
            "update --memory 1 --memory-swap -1 --cpu-quota -1 --pids-limit -1 id",
            "events --stats id",
            "events --interval=5s id",
            "list --format=json",
            "features",
            "spec --rootless -b /x",
            "checkpoint --image-path /i --work-path /w --parent-path ../p --tcp-established --ext-unix-sk --shell-job \
             --page-server a:1 --file-locks --manage-cgroups-mode soft --empty-ns network --lazy-pages --status-fd 3 \
             --leave-running --pre-dump --auto-dedup --link-remap --tcp-skip-in-flight id",
            "restore --image-path /i --work-path /w --tcp-established --tcp-close --file-locks --lsm-profile=selinux:x \
             --lsm-mount-context=x --detach --pid-file /f --console-socket /s --no-pivot -no-subreaper --bundle /b id",
        ];
        for line in lines {
            let mut words = line.split_whitespace().map(Into::into).collect::<Vec<_>>().into_iter();
            let name: std::ffi::OsString = words.next().unwrap();
            let verb = VERBS.iter().find(|verb| name == verb.name).unwrap();
            let given = super::super::flags::parse(verb.flags, &mut words, verb.until)
                .unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!((verb.least..=verb.most).contains(&given.words.len()), "{line}");
        }
    }
}

//! Every option, section by section, in the order of `--help`. To add one is to add an entry.

use std::str::FromStr;

use fumehood::{
    Error,
    error::Hint,
    image::build::recipe::Package,
    net::{
        policy::{Injection, Private},
        publish::Publish,
    },
    packages::{Index, PackagesError},
    plan::{
        landlock::Policy,
        profile::{BUILTINS, Builtin},
        seccomp::Profile as SeccompProfile,
    },
    request::{Bytes, Fetch, Hostname, Mount, Rootfs, SandboxId, Secret, User, files, gvisor::Platform, limits},
};

use super::super::policy::{NetworkMode, rules};
use super::{Flag, Of, Section, UsageError, prefixed, shown, switch, value};

const PROFILES: &[&str] = &[BUILTINS[0].name, BUILTINS[1].name, BUILTINS[2].name];

const ISOLATIONS: &[&str] = &["native", "gvisor"];

const NETWORK_MODES: &[&str] = &["none", "filtered", "packages", "web", "public", "open", "host"];

/// For who means by zero or less, as docker-run(1) does, that there be no limit.
pub(super) const BOUNDED: &str =
    "0 and -1 mean no limit elsewhere; here every sandbox has one: give the most it may need";
/// Fewer, and it could not be set up under its own limit.
const LEAST_FILES: u64 = 16;

pub static FLAGS: &[Flag] = &[
    value(
        "eval",
        "CODE",
        Of::Text,
        Section::Code,
        "Run CODE; in Python unless --runtime or its #! line says otherwise.",
        |low, given| {
            low.eval = Some(given.raw);
            Ok(())
        },
    )
    .short('e'),
    value("cmd", "LINE", Of::Text, Section::Code, "Run a line of shell.", |low, given| {
        low.cmd = Some(given.text()?);
        Ok(())
    }),
    value(
        "runtime",
        "NAME",
        Of::Text,
        Section::Code,
        "The language: a name, an alias or a program, such as python, js, g++ or python3.11; see \
         `fumehood runtimes`. Left out: by the #! line, then by the extension.",
        |low, given| {
            low.runtime = Some(given.text()?);
            Ok(())
        },
    )
    .short('r'),
    value("stdin", "DATA", Of::Text, Section::Code, "What the program reads from its standard input.", |low, given| {
        low.stdin = Some(given.raw);
        Ok(())
    }),
    switch("interactive", Section::Code, "Pass on your standard input; otherwise it is empty.", |low| {
        low.interactive = true
    })
    .short('i'),
    switch(
        "tty",
        Section::Code,
        "Give the program a terminal, connected to yours. Implies -i, and no --timeout unless it \
         is given.",
        |low| low.tty = true,
    )
    .short('t'),
    value(
        "file",
        "HOST[:BOX]",
        Of::File,
        Section::Files,
        "Copy a file in, to BOX or to its own name in /sandbox.",
        |low, given| {
            low.files.push(given.parse(files::parse_pair)?);
            Ok(())
        },
    )
    .repeatable(),
    value("dir", "HOST[:BOX]", Of::Dir, Section::Files, "Copy a directory in, without its links.", |low, given| {
        low.dirs.push(given.parse(files::parse_pair)?);
        Ok(())
    })
    .repeatable(),
    value(
        "get",
        "PATH[:HOST]",
        Of::Text,
        Section::Files,
        "Copy a file out after the run, to HOST or to its own name here. PATH may have *, ?, \
         [...], {...} and **.",
        |low, given| {
            low.fetch.push(given.parse(Fetch::parse)?);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "mount",
        "SRC:DST[:ro|rw]",
        Of::File,
        Section::Files,
        "Show a file or directory of yours at DST, read-only unless rw. What the program writes \
         there stays.",
        |low, given| {
            low.mounts.push(given.parse(Mount::parse)?);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "exclude",
        "PATH",
        Of::File,
        Section::Files,
        "Hide a path of yours wherever a mount would show it.",
        |low, given| {
            low.exclude.push(given.path());
            Ok(())
        },
    )
    .repeatable(),
    value(
        "rootfs",
        "host|DIR",
        Of::Dir,
        Section::Root,
        "What / is: this host's programs, read-only, without its files (host, the default), or a \
         directory with a whole system tree.",
        |low, given| {
            low.rootfs = Some(if given.raw == "host" { Rootfs::Host } else { Rootfs::Dir(given.path()) });
            Ok(())
        },
    ),
    value(
        "bundle",
        "DIR",
        Of::Dir,
        Section::Root,
        "Run what the config.json of an OCI bundle says; ARGS replace its own.",
        |low, given| {
            low.bundle = Some(given.path());
            Ok(())
        },
    ),
    value(
        "image",
        "REF",
        Of::Text,
        Section::Root,
        "Run an OCI image of `fumehood image list`: its Entrypoint and Cmd, or ARGS for Cmd, with its Env, WorkingDir, \
         User and Volumes; options stand over them. Its / is writable, in memory; see --sandbox-size.",
        |low, given| {
            low.image = Some(given.text()?);
            Ok(())
        },
    ),
    value(
        "entrypoint",
        "PROGRAM",
        Of::Text,
        Section::Root,
        "In place of the image's Entrypoint and Cmd; empty for none.",
        |low, given| {
            low.entrypoint = Some(given.raw);
            Ok(())
        },
    ),
    value(
        "store",
        "DIR",
        Of::Dir,
        Section::Root,
        "Where images are kept [default: /var/lib/fumehood for root, else ~/.local/share/fumehood].",
        |low, given| {
            low.store = Some(given.path());
            Ok(())
        },
    ),
    value(
        "install",
        "PACKAGE",
        Of::Text,
        Section::Root,
        "A package of the code's language, by pip, npm or gem: installed in a sandbox of its own, which reaches the \
         registry and nothing else, kept in the store, and shown read-only. The code itself gets no network by it. What is kept is not \
         looked for anew; `fumehood image prune` removes it.",
        |low, given| {
            let text = given.text()?;
            if Package::new(&text).is_none() {
                return Err(PackagesError::NoPackage { text }.into_error());
            }
            low.install.push(text);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "index-url",
        "URL|DIR",
        Of::Dir,
        Section::Root,
        "Where the packages of --install come from: an index, or a directory with them, for which no network is \
         needed.",
        |low, given| {
            low.index = Some(Index::parse(&given.text()?).map_err(Hint::into_error)?);
            Ok(())
        },
    ),
    switch("read-only", Section::Root, "Keep the / of an image read-only; others are, unasked.", |low| {
        low.read_only = true;
    }),
    switch(
        "writable",
        Section::Root,
        "Make / writable, in memory, for its owner, root (see --user); with --rootfs host, /usr \
         stays read-only.",
        |low| {
            low.writable = true;
        },
    ),
    switch(
        "keep",
        Section::Root,
        "Keep what it writes to /, under its --name, when it has ended: see `fumehood diff` and `fumehood commit`.",
        |low| {
            low.keep = true;
        },
    ),
    value(
        "memory",
        "SIZE",
        Of::Text,
        Section::Limits,
        "Memory of all its processes and files together [default: 512m].",
        |low, given| {
            low.limits.memory = given.limit(BOUNDED, Bytes::parse)?;
            low.limits.asked.memory = true;
            Ok(())
        },
    )
    .short('m'),
    value("cpu", "NUMBER", Of::Text, Section::Limits, "CPUs, such as 0.5 [default: 1].", |low, given| {
        low.limits.cpus = given.limit(BOUNDED, limits::parse_cpus)?;
        low.limits.asked.cpus = true;
        Ok(())
    })
    .alias(&["cpus"]),
    value(
        "pids-limit",
        "NUMBER",
        Of::Text,
        Section::Limits,
        "Processes and threads at once [default: 128].",
        |low, given| {
            low.limits.pids = given.limit(BOUNDED, |text| limits::parse_count(text, 1, 4_194_304))? as u32;
            low.limits.asked.pids = true;
            Ok(())
        },
    )
    .alias(&["pids"]),
    value(
        "timeout",
        "TIME",
        Of::Text,
        Section::Limits,
        "Wall time, such as 500ms, 10s or 2m; a plain number is milliseconds; `none` is no limit \
         [default: 30s].",
        |low, given| {
            low.timeout_asked = true;
            low.limits.timeout = match given.raw.to_str() {
                Some("none") => None,
                _ => Some(given.limit("`--timeout none` is no limit", limits::parse_duration)?),
            };
            Ok(())
        },
    ),
    value(
        "cpu-time",
        "TIME",
        Of::Text,
        Section::Limits,
        "CPU time of all its processes together [default: no limit].",
        |low, given| {
            low.limits.cpu_time = Some(given.limit("leave --cpu-time out for no limit", limits::parse_duration)?);
            Ok(())
        },
    ),
    value(
        "max-output",
        "SIZE",
        Of::Text,
        Section::Limits,
        "Of stdout, and again of stderr [default: 1m].",
        |low, given| {
            low.limits.output = given.limit(BOUNDED, Bytes::parse)?;
            Ok(())
        },
    ),
    value("sandbox-size", "SIZE", Of::Text, Section::Limits, "What /sandbox holds, and what may be written to a writable / [default: 512m].", |low, given| {
        low.limits.sandbox = given.limit(BOUNDED, Bytes::parse)?;
        Ok(())
    }),
    value("tmp-size", "SIZE", Of::Text, Section::Limits, "What /tmp holds [default: 256m].", |low, given| {
        low.limits.tmp = given.limit(BOUNDED, Bytes::parse)?;
        Ok(())
    }),
    value(
        "nofile",
        "NUMBER",
        Of::Text,
        Section::Limits,
        "Open files of one process, at least 16 [default: 1024].",
        |low, given| {
            low.limits.nofile = given.limit(BOUNDED, |text| limits::parse_count(text, LEAST_FILES, 1 << 20))?;
            Ok(())
        },
    ),
    value(
        "env",
        "K[=V]",
        Of::Text,
        Section::Environment,
        "Set a variable; K alone passes on your own, if you have it. Nothing else of your \
         environment is passed on.",
        |low, given| {
            low.env.push(given.raw);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "env-file",
        "FILE",
        Of::File,
        Section::Environment,
        "Set variables from lines of K=V or K; # begins a comment.",
        |low, given| {
            low.env_files.push(given.path());
            Ok(())
        },
    )
    .repeatable(),
    value(
        "secret",
        "K[=V]",
        Of::Text,
        Section::Environment,
        "As --env, and the value is masked in all that the program prints. K alone keeps it out \
         of your shell's history.",
        |low, given| {
            low.secrets.push(Secret::parse(&given.raw, |name| std::env::var_os(name)).map_err(Hint::into_error)?);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "user",
        "UID[:GID]",
        Of::Text,
        Section::Environment,
        "Who the program is inside [default: the image's User, else 1000:1000]. To an ordinary user, 0, 1000 and their own ids \
         need no helper; others are of their subordinate ids, mapped by newuidmap(1).",
        |low, given| {
            low.user = Some(given.parse(User::parse)?);
            Ok(())
        },
    )
    .short('u'),
    value("workdir", "DIR", Of::Text, Section::Environment, "Where it starts [default: the image's WorkingDir, else /sandbox].", |low, given| {
        low.workdir = Some(given.path());
        Ok(())
    })
    .short('w'),
    value(
        "hostname",
        "NAME",
        Of::Text,
        Section::Environment,
        "What it takes the host's name for, at most 64 bytes [default: sandbox].",
        |low, given| {
            low.hostname = Some(given.named(Hostname::parse)?);
            Ok(())
        },
    ),
    value(
        "net",
        "MODE",
        Of::Any(NETWORK_MODES),
        Section::Network,
        "none, the default: nothing but a localhost of its own. filtered: what --allow names. \
         packages: that, and the registries of languages and distributions. web: public hosts, ports \
         80 and 443. public: public hosts, all ports but those of mail. open: also UDP. host: your \
         own network, with no isolation. @FILE: a policy as JSON.",
        |low, given| {
            low.network = Some(given.explained(NetworkMode::parse)?);
            Ok(())
        },
    )
    .alias(&["network"]),
    value(
        "allow",
        "RULE",
        Of::Text,
        Section::Network,
        "Let it reach NAME, *.NAME, NAME:PORT, CIDR[:PORT] or /REGEX/, or make the requests \
         '[METHOD,... ]https://NAME[/PATH]' alone, or what the lines of @FILE say, or the list @packages; \
         --net filtered is then the default.",
        |low, given| {
            low.allow.extend(given.named(rules)?);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "deny",
        "RULE",
        Of::Text,
        Section::Network,
        "Keep it from reaching that, whatever is allowed.",
        |low, given| {
            low.deny.extend(given.named(rules)?);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "allow-private",
        "HOST:PORT",
        Of::Text,
        Section::Network,
        "Let it reach one port of a host that is not public, which nothing else opens; \
         localhost:PORT is this host's own, as host.fumehood.internal:PORT inside.",
        |low, given| {
            low.allow_private.push(given.named(Private::from_str)?);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "inject",
        "NAME[:PORT]:HEADER=VALUE",
        Of::Text,
        Section::Network,
        "Add a header to its HTTPS requests to NAME, on the way: the value stays outside. $VAR in it is \
         a variable of your environment, $$ a dollar sign.",
        |low, given| {
            let text = given.raw.to_str().ok_or_else(|| Error::new("--inject: it is not UTF-8"))?;
            let parsed = Injection::parse(text, |name| std::env::var_os(name));
            low.inject.push(parsed.map_err(|error| prefixed("--inject", &error.into_error()))?);
            Ok(())
        },
    )
    .repeatable(),
    value(
        "setup",
        "LINE",
        Of::Text,
        Section::Network,
        "Run a line of shell before, in the same sandbox, with the network of --setup-net, such as what installs \
         something into /sandbox. Then all its processes and connections are ended and the network is that of --net. If \
         it fails, nothing else runs. It has five minutes, or --timeout if that is longer.",
        |low, given| {
            low.setup = Some(given.text()?);
            Ok(())
        },
    ),
    value(
        "setup-net",
        "MODE",
        Of::Any(NETWORK_MODES),
        Section::Network,
        "What --setup may reach, as --net says it, but for host [default: packages].",
        |low, given| {
            low.setup_network = Some(given.explained(NetworkMode::parse)?);
            Ok(())
        },
    ),
    value(
        "publish",
        "[[ADDRESS:]HOSTPORT:]PORT",
        Of::Text,
        Section::Network,
        "Open its TCP port PORT on this host, on 127.0.0.1 unless ADDRESS is another, as HOSTPORT, by default PORT; \
         0 takes any that is free, and it is told.",
        |low, given| {
            low.publish.push(given.named(Publish::from_str)?);
            Ok(())
        },
    )
    .short('p')
    .repeatable(),
    value(
        "log-network",
        "FILE",
        Of::File,
        Section::Network,
        "Add to FILE a line of JSON for each connection, when it has ended, and each question for a name, allowed or \
         not; `-` is standard error. With --events they are events, unasked.",
        |low, given| {
            low.log_network = Some(given.raw);
            Ok(())
        },
    ),
    value(
        "isolation",
        "KIND",
        Of::Any(ISOLATIONS),
        Section::Isolation,
        "What is between it and this host's kernel: a filter (native, the default), or a kernel of its own, which is \
         the program runsc (gvisor).",
        |low, given| {
            let kind = given.text()?;
            low.gvisor = match kind.as_str() {
                "native" => false,
                "gvisor" => true,
                _ => return Err(UsageError::Isolation { kind }.into_error()),
            };
            Ok(())
        },
    ),
    value(
        "gvisor-platform",
        "NAME",
        Of::Any(&Platform::NAMES),
        Section::Isolation,
        "How gVisor takes its system calls: systrap, kvm, ptrace, or what that runsc prefers [default: auto].",
        |low, given| {
            let name = given.text()?;
            low.platform =
                Some(Platform::by_name(&name).ok_or_else(|| UsageError::Platform { name }.into_error())?);
            Ok(())
        },
    ),
    value(
        "profile",
        "NAME",
        Of::Any(PROFILES),
        Section::Isolation,
        "Which system calls and files are open to it; see `fumehood profile list` [default: \
         default].",
        |low, given| {
            low.profile = Some(Builtin::by_name(&given.text()?).map_err(|error| {
                Error::new(error.to_string()).with_hint("`fumehood profile list` tells what each is for")
            })?);
            Ok(())
        },
    ),
    value(
        "seccomp",
        "FILE",
        Of::File,
        Section::Isolation,
        "A filter of your own, as Docker writes them, in place of the profile's.",
        |low, given| {
            let (path, text) = given.read()?;
            low.seccomp =
                Some(SeccompProfile::parse(&text).map_err(|error| prefixed(&shown(&path), &error.into_error()))?);
            Ok(())
        },
    ),
    value(
        "landlock",
        "FILE",
        Of::File,
        Section::Isolation,
        "Landlock rules of your own, as `fumehood profile show` writes them, on top of all \
         others.",
        |low, given| {
            let (path, text) = given.read()?;
            low.landlock =
                Some(Policy::parse(&text).map_err(|error| prefixed(&shown(&path), &Error::new(error.to_string())))?);
            Ok(())
        },
    ),
    switch(
        "json",
        Section::Output,
        "Print one JSON object and nothing else: the verdict, the output, usage, limits, denials.",
        |low| {
            low.json = true;
        },
    ),
    switch("events", Section::Output, "Print a JSON object a line, as it happens, and the result last.", |low| {
        low.events = true
    }),
    switch("spec", Section::Output, "Print the OCI runtime specification.", |low| low.spec = true).explain_only(),
    value("out", "FILE", Of::File, Section::Output, "Write the program's standard output to FILE.", |low, given| {
        low.out = Some(given.path());
        Ok(())
    }),
    value(
        "name",
        "ID",
        Of::Text,
        Section::Output,
        "The sandbox's name in `fumehood ps` [default: random].",
        |low, given| {
            low.id = Some(given.parse(SandboxId::parse)?);
            Ok(())
        },
    ),
    switch("quiet", Section::Output, "Say nothing but errors and what the program says.", |low| low.quiet = true)
        .short('q'),
    switch("help", Section::Output, "Print this.", |low| low.help = true).short('h'),
];

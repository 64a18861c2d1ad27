//! From a job to the sandbox that it means: the template of the batch, with what the job says over it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    job::{Case, Content, Job, Kernel, Net, Quantity},
    settings::Settings,
};
use crate::{
    Error, Result, Sandbox, Stdin,
    error::Hint,
    image::{Ready, Store},
    net::policy::{Mode, Policy, Rule, RuleError},
    request::{
        Bytes, Fetch, Fetched, Gvisor, Limits, Network, RequestError, Rootfs, User,
        gvisor::Platform,
        limits::{QuantityError, parse_count, parse_cpus, parse_duration},
    },
};

/// Images by name, found once and held.
#[derive(Debug, Default)]
pub(super) struct Images(HashMap<String, Arc<Ready>>);

impl Images {
    fn find(&mut self, name: &str, store: Option<&Path>) -> Result<Arc<Ready>> {
        if let Some(ready) = self.0.get(name) {
            return Ok(ready.clone());
        }
        let store = Store::open(store).map_err(Hint::into_error)?;
        let ready = Arc::new(Ready::find(&store, name, &|_| ()).map_err(Hint::into_error)?);
        self.0.insert(name.to_owned(), ready.clone());
        Ok(ready)
    }
}

/// Results are in memory, as text, until they are written.
pub(super) const MOST_OUTPUT: Bytes = Bytes::mib(32);

/// The limits of a job; the template's where it says none.
pub(super) fn limits(job: &Job, template: &Limits) -> Result<Limits> {
    let mut limits = template.clone();
    let said = &job.limits;
    if let Some(text) = &said.memory {
        limits.memory = read("memory", text, Bytes::parse)?;
        limits.asked.memory = true;
    }
    if let Some(text) = &said.cpu {
        limits.cpus = read("cpu", text, parse_cpus)?;
        limits.asked.cpus = true;
    }
    if let Some(text) = &said.pids {
        limits.pids = read("pids", text, |text| parse_count(text, 1, 4_194_304))? as u32;
        limits.asked.pids = true;
    }
    if let Some(text) = &said.timeout {
        limits.timeout = if text.0 == "none" { None } else { Some(read("timeout", text, parse_duration)?) };
    }
    if let Some(text) = &said.cpu_time {
        limits.cpu_time = Some(read("cpu_time", text, parse_duration)?);
    }
    for (name, text, limit) in [
        ("output", &said.output, &mut limits.output),
        ("disk", &said.disk, &mut limits.sandbox),
        ("tmp", &said.tmp, &mut limits.tmp),
    ] {
        if let Some(text) = text {
            *limit = read(name, text, Bytes::parse)?;
        }
    }
    if let Some(text) = &said.nofile {
        limits.nofile = read("nofile", text, |text| parse_count(text, 16, 1 << 20))?;
    }
    if limits.output > MOST_OUTPUT {
        let error = Error::new(format!("`limits.output`: a batch keeps at most {MOST_OUTPUT} of a stream"));
        return Err(error.with_hint("have it written to a file, and name that in `get`"));
    }
    Ok(limits)
}

fn read<T>(name: &str, text: &Quantity, parse: impl FnOnce(&str) -> Result<T, QuantityError>) -> Result<T> {
    parse(&text.0).map_err(|error| Error::new(format!("`limits.{name}`: {error}")))
}

/// The sandbox of a job, without what one of its cases adds.
pub(super) fn sandbox(job: &Job, settings: &Settings, images: &mut Images) -> Result<Sandbox> {
    let mut sandbox = settings.template.clone();
    program(job, &mut sandbox)?;
    if let Some(name) = &job.image {
        let image = images.find(name, settings.store.as_deref())?;
        if !sandbox.is_said() {
            sandbox.becomes(Sandbox::image(image.clone()));
        }
        sandbox.rootfs(Rootfs::Image(image));
    }
    if let Some(args) = job.args.as_ref().filter(|_| job.argv.is_none()) {
        sandbox.new_args(args);
    }
    sandbox.limits(limits(job, settings.template.its_limits())?);
    if let Some(net) = &job.net {
        sandbox.network(network(net)?);
    }
    match job.isolation {
        None => {}
        Some(Kernel::Native) => _ = sandbox.native(),
        Some(Kernel::Gvisor) => {
            let named = std::env::var_os("FUMEHOOD_RUNSC");
            let found = Gvisor::find(Platform::default(), named.as_deref());
            sandbox.gvisor(found.map_err(Hint::into_error)?);
        }
    }
    if let Some(user) = &job.user {
        sandbox.user(User::parse(user).map_err(|error| RequestError::from(error).into_error())?);
    }
    if let Some(dir) = &job.workdir {
        sandbox.workdir(dir);
    }
    variables(job.env.iter(), &mut sandbox)?;
    place(job.files.iter(), &mut sandbox)?;
    if let Some(stdin) = &job.stdin {
        sandbox.stdin(Stdin::Bytes(stdin.0.clone()));
    }
    for expect in job.expect.iter().chain(job.cases.iter().filter_map(|case| case.expect.as_ref())) {
        expect.check().map_err(Error::new)?;
    }
    if !sandbox.is_said() {
        return Err(RequestError::NothingSaid.into_error());
    }
    Ok(sandbox)
}

/// What a case says over its job.
pub(super) fn case(case: &Case, sandbox: &mut Sandbox) -> Result<()> {
    if let Some(args) = &case.args {
        sandbox.new_args(args);
    }
    variables(case.env.iter(), sandbox)?;
    place(case.files.iter(), sandbox)?;
    if let Some(stdin) = &case.stdin {
        sandbox.stdin(Stdin::Bytes(stdin.0.clone()));
    }
    Ok(())
}

/// What is looked for in the sandbox when it has ended: what is expected, and what is wanted, for which `out` is made.
pub(super) fn fetch(job: &Job, case: Option<&Case>, out: Option<&Path>, sandbox: &mut Sandbox) -> Result<()> {
    let expected = job.expects(case);
    // What is judged comes first: the first that is wanted and is not there is the last that is looked for.
    for path in expected.iter().flat_map(|expect| expect.files.keys()) {
        let wanted = Fetch::inside(path).map_err(|error| RequestError::from(error).into_error())?;
        if wanted.is_pattern() {
            return Err(Error::new(format!("`expect.files`: `{path}` is a pattern")));
        }
        sandbox.fetch(Fetch { how: Fetched::Hashed, ..wanted });
    }
    for text in job.get.iter().flatten() {
        // Where it goes is not for a job to say.
        let wanted = Fetch::inside(text).map_err(|error| RequestError::from(error).into_error())?;
        let Some(out) = out else {
            return Err(
                Error::new(format!("`get`: there is no place for `{text}`")).with_hint("name one with --artifacts")
            );
        };
        let out = out.join("files");
        let path = Path::new(&wanted.pattern);
        let to = if wanted.is_pattern() {
            out
        } else {
            out.join(path.strip_prefix(crate::spec::WORKDIR).or_else(|_| path.strip_prefix("/")).unwrap_or(path))
        };
        let dir = if wanted.is_pattern() { Some(to.as_path()) } else { to.parent() };
        if let Some(dir) = dir {
            fs::create_dir_all(dir).map_err(|error| Error::new(format!("cannot make `{}`: {error}", dir.display())))?;
        }
        sandbox.fetch(Fetch { to: Some(to), ..wanted });
    }
    Ok(())
}

fn program(job: &Job, sandbox: &mut Sandbox) -> Result<()> {
    let said = [
        job.code.as_ref().map(|_| "code"),
        job.file.as_ref().map(|_| "file"),
        job.argv.as_ref().map(|_| "argv"),
        job.cmd.as_ref().map(|_| "cmd"),
    ];
    let mut said = said.into_iter().flatten();
    if let (Some(first), Some(second)) = (said.next(), said.next()) {
        return Err(Error::new(format!("`{first}` and `{second}` cannot be given together: each says what to run")));
    }
    if let Some(Content(code)) = &job.code {
        sandbox.becomes(Sandbox::code(code.clone()));
    } else if let Some(file) = &job.file {
        sandbox.becomes(Sandbox::file(file));
    } else if let Some(argv) = &job.argv {
        let Some((program, args)) = argv.split_first() else {
            return Err(Error::new("`argv` names no program"));
        };
        let mut command = Sandbox::command(program);
        command.args(args).args(job.args.iter().flatten());
        sandbox.becomes(command);
    } else if let Some(line) = &job.cmd {
        sandbox.becomes(Sandbox::shell(line));
    }
    if let Some(name) = &job.runtime {
        if !sandbox.is_source() && sandbox.is_said() {
            return Err(Error::new("`runtime` is for source code, and the job has none"));
        }
        sandbox.runtime(name);
    }
    Ok(())
}

fn network(net: &Net) -> Result<Network> {
    let (mode, allow, deny) = match net {
        Net::Mode(mode) => (Some(mode.as_str()), &[][..], &[][..]),
        Net::Rules(rules) => (rules.mode.as_deref(), &rules.allow[..], &rules.deny[..]),
    };
    let named = |error: RuleError| {
        let error = error.into_error();
        let told = Error::new(format!("`net`: {}", error.message()));
        match error.hint() {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    };
    let mode = match mode {
        Some("none") if allow.is_empty() && deny.is_empty() => return Ok(Network::None),
        Some("none") => return Err(Error::new("`net`: rules are for a network, and the mode is none")),
        Some("host") => {
            return Err(Error::new("`net`: a job does not get the host's own network by asking")
                .with_hint("--net host gives it to all jobs"));
        }
        Some(mode) => mode.parse::<Mode>().map_err(|_| {
            Error::new(format!("`net`: unknown network mode `{mode}`"))
                .with_hint("there are none, filtered, packages, web, public and open")
        })?,
        None => Mode::Filtered,
    };
    let mut policy = Policy::new(mode).map_err(named)?;
    for rule in allow {
        policy.allow(rule.parse::<Rule>().map_err(named)?).map_err(named)?;
    }
    for rule in deny {
        policy.deny(rule.parse::<Rule>().map_err(named)?).map_err(named)?;
    }
    Ok(Network::Gateway(Box::new(policy)))
}

fn variables<'a>(variables: impl Iterator<Item = (&'a String, &'a String)>, sandbox: &mut Sandbox) -> Result<()> {
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::new(format!("`env`: `{name}` is no variable")));
        }
        sandbox.env(name, value);
    }
    Ok(())
}

fn place<'a>(files: impl Iterator<Item = (&'a String, &'a Content)>, sandbox: &mut Sandbox) -> Result<()> {
    for (path, content) in files {
        sandbox
            .place(PathBuf::from(path), content.0.as_slice())
            .map_err(|error| Error::new(format!("`files`: {}", error.message())))?;
    }
    Ok(())
}

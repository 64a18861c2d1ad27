//! From what was typed to the sandbox that was meant.

use std::{
    ffi::{OsStr, OsString},
    io::{IsTerminal, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    sync::{Arc, OnceLock},
};

use fumehood::{
    Error, Result, Sandbox, Stdin,
    error::Hint,
    image::{Image, Ready, Store},
    net::policy::{Mode, Policy},
    packages::{Install, Manager, PackagesError},
    request::{Bytes, Gvisor, Network, Rootfs, Secret, files},
};

use super::{
    low::{Low, Verb},
    message,
    policy::{NetworkMode, Words},
    progress::Progress,
    usage::UsageError,
};

/// What a file of environment variables may hold.
const ENV_FILE: Bytes = Bytes::mib(4);

/// Takes what it needs out of `low`; what remains says how to report.
pub fn sandbox(verb: Verb, low: &mut Low) -> Result<Sandbox> {
    let image = image(verb, low)?;
    let image_of_packages = image.clone().filter(|_| !low.install.is_empty());
    let mut sandbox = program(verb, low, image)?;
    if let Some(runtime) = low.runtime.take() {
        sandbox.runtime(runtime);
    }
    if let Some(rootfs) = low.rootfs.take() {
        sandbox.rootfs(rootfs);
    }
    for (host, inside) in low.files.drain(..) {
        sandbox.copy_file(host, inside);
    }
    for (host, inside) in low.dirs.drain(..) {
        sandbox.copy_dir(host, inside);
    }
    for fetch in low.fetch.drain(..) {
        sandbox.fetch(fetch);
    }
    for mount in low.mounts.drain(..) {
        sandbox.mount(mount);
    }
    for path in low.exclude.drain(..) {
        sandbox.exclude(path);
    }
    install(verb, low, image_of_packages, &mut sandbox)?;
    environment(verb, low, &mut sandbox)?;
    if let Some(user) = low.user {
        sandbox.user(user);
    }
    if let Some(dir) = low.workdir.take() {
        sandbox.workdir(dir);
    }
    if let Some(name) = low.hostname.take() {
        sandbox.hostname(name);
    }
    let mut gateway = !low.publish.is_empty();
    for publish in low.publish.drain(..) {
        if !publish.address.is_loopback() && !low.quiet {
            message::note(&format!("--publish: port {} is open to all who reach {}", publish.port, publish.address));
        }
        sandbox.publish(publish);
    }
    if let Some(line) = low.setup.take() {
        let network = setup_network(low).map_err(Hint::into_error)?;
        gateway |= matches!(network, Network::Gateway(_));
        sandbox.setup(line, network);
    }
    let network = network(low).map_err(Hint::into_error)?;
    gateway |= matches!(network, Network::Gateway(_));
    if low.log_network.is_some() && (!gateway || network == Network::Host) {
        return Err(UsageError::NothingToLog { mode: network.name() }.into_error());
    }
    sandbox.network(network);
    if low.gvisor {
        let named = std::env::var_os("FUMEHOOD_RUNSC");
        let found = Gvisor::find(low.platform.unwrap_or_default(), named.as_deref());
        sandbox.gvisor(found.map_err(Hint::into_error)?);
    }
    if let Some(profile) = low.profile {
        sandbox.profile(profile);
    }
    if let Some(profile) = low.seccomp.take() {
        sandbox.seccomp(profile);
    }
    if let Some(policy) = low.landlock.take() {
        sandbox.landlock(policy);
    }
    if let Some(id) = low.id.clone() {
        sandbox.id(id);
    }
    if low.tty && !low.timeout_asked {
        // Who sits at a terminal needs no clock.
        low.limits.timeout = None;
    }
    if low.writable || low.read_only {
        sandbox.writable(low.writable);
    }
    sandbox.keeps(low.keep);
    sandbox.limits(low.limits.clone()).terminal(low.tty).stdin(match low.stdin.take() {
        Some(data) => Stdin::Bytes(data.into_vec()),
        None if low.interactive || low.tty => Stdin::Inherit,
        None => Stdin::Empty,
    });
    Ok(sandbox)
}

fn network(low: &mut Low) -> Result<Network, UsageError> {
    let words = Words {
        mode: low.network.clone(),
        allow: std::mem::take(&mut low.allow),
        deny: std::mem::take(&mut low.deny),
        allow_private: std::mem::take(&mut low.allow_private),
        inject: std::mem::take(&mut low.inject),
    };
    words.network()
}

/// What a setup reaches: by default what most are about.
fn setup_network(low: &mut Low) -> Result<Network, UsageError> {
    let mode = match low.setup_network.take() {
        Some(mode) => mode,
        None => NetworkMode::Gateway(Box::new(Policy::new(Mode::Packages)?)),
    };
    Words { mode: Some(mode), ..Words::default() }.network()
}

/// The image that is named, of the store, unpacked now if it was not; held, if what is done to it will be kept.
fn image(verb: Verb, low: &mut Low) -> Result<Option<Arc<Ready>>> {
    let Some(name) = &low.image else { return Ok(None) };
    let store = Store::open(low.store.as_deref()).map_err(Hint::into_error)?;
    let image = Image::find(&store, name).map_err(Hint::into_error)?;
    if low.keep && verb == Verb::Run {
        // By the store's lock nobody prunes between the two.
        low.pin = Some(store.pin(&image.digest).map_err(Hint::into_error)?);
    }
    let bar = OnceLock::new();
    let total = (!low.quiet).then(|| image.packed_bytes());
    let ready = Ready::of(&store, &image, &|bytes| {
        if total.is_some() {
            bar.get_or_init(|| Progress::new("unpacking", total)).add(bytes);
        }
    });
    if let Some(bar) = bar.get() {
        bar.finish();
    }
    ready.map(|ready| Some(Arc::new(ready))).map_err(Hint::into_error)
}

/// The packages that are named: those of an earlier run, or installed now.
fn install(verb: Verb, low: &Low, image: Option<Arc<Ready>>, sandbox: &mut Sandbox) -> Result<()> {
    if low.install.is_empty() {
        return Ok(());
    }
    if low.bundle.is_some() || matches!(low.rootfs, Some(Rootfs::Dir(_))) {
        return Err(UsageError::NoInstall.into_error());
    }
    let (language, program) = sandbox.language()?;
    let manager = Manager::of_runtime(&language);
    let manager = manager.ok_or_else(|| PackagesError::NoRuntime { what: language }.into_error())?;
    let store = Store::open(low.store.as_deref()).map_err(Hint::into_error)?;
    let install = Install { manager, program: &program, packages: &low.install, index: low.index.as_ref(), image };
    let found = install.find(&store).map_err(Hint::into_error)?;
    let installed = match (found, verb) {
        (Some(found), _) => found,
        (None, Verb::Explain) => return Err(UsageError::NotInstalled.into_error()),
        (None, Verb::Run | Verb::Batch) => {
            if !low.quiet {
                message::note(&format!("{} installs {}", manager.name(), low.install.join(" ")));
            }
            let mut tell = |text: &str| _ = std::io::stderr().lock().write_all(text.as_bytes());
            install.install(&store, &mut tell).map_err(Hint::into_error)?
        }
    };
    sandbox.packages(manager, installed)?;
    Ok(())
}

fn program(verb: Verb, low: &mut Low, image: Option<Arc<Ready>>) -> Result<Sandbox> {
    let mut args = std::mem::take(&mut low.args);
    let mut sandbox = if let Some(code) = low.eval.take() {
        Sandbox::code(code.into_vec())
    } else if let Some(line) = low.cmd.take() {
        Sandbox::shell(line)
    } else if let Some(dir) = low.bundle.take() {
        Sandbox::bundle(dir)
    } else if let Some(file) = &low.file {
        if file == "-" { Sandbox::code(own_stdin(low.limits.sandbox)?) } else { Sandbox::file(file) }
    } else if let Some(image) = image.as_ref().filter(|_| args.is_empty() && low.runtime.is_none()) {
        Sandbox::image(image.clone())
    } else if args.is_empty() && verb == Verb::Batch {
        // The jobs say; to have packages it has to be of a language.
        if low.install.is_empty() { Sandbox::template() } else { Sandbox::code("") }
    } else if args.is_empty() {
        Sandbox::code(piped(verb, low)?)
    } else {
        Sandbox::command(args.remove(0))
    };
    sandbox.args(args);
    if let Some(image) = image {
        sandbox.rootfs(Rootfs::Image(image));
    }
    if let Some(word) = low.entrypoint.take() {
        sandbox.entrypoint(Some(word).filter(|word| !word.is_empty()));
    }
    Ok(sandbox)
}

/// Nothing was named: as an interpreter does, takes the code from what is piped in.
fn piped(verb: Verb, low: &Low) -> Result<Vec<u8>> {
    let taken = low.interactive || low.tty || std::io::stdin().is_terminal();
    let code = if taken { Vec::new() } else { own_stdin(low.limits.sandbox)? };
    // In a script without a terminal an empty standard input says that nothing was meant to be read.
    if code.is_empty() && verb == Verb::Run {
        return Err(UsageError::Nothing { verb: verb.name() }.into_error());
    }
    Ok(code)
}

fn own_stdin(most: Bytes) -> Result<Vec<u8>> {
    let failed = |why: String| Error::new(format!("code from standard input: {why}"));
    match files::read_at_most(std::io::stdin().lock(), 0, most) {
        Ok(Some(code)) => Ok(code.to_vec()),
        Ok(None) => Err(failed(format!("it is over {most} bytes")).with_hint("raise --sandbox-size")),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Files first, so that what is named on the command line stands over them.
fn environment(verb: Verb, low: &mut Low, sandbox: &mut Sandbox) -> Result<()> {
    for path in &low.env_files {
        for assignment in env_file(path)? {
            assign(sandbox, &assignment)?;
        }
    }
    for assignment in &low.env {
        assign(sandbox, assignment)?;
    }
    for secret in low.secrets.drain(..) {
        // An explanation is printed and passed around.
        let shown = match verb {
            Verb::Run | Verb::Batch => secret,
            Verb::Explain => Secret::new(secret.name(), "***").map_err(Hint::into_error)?,
        };
        sandbox.secret(shown);
    }
    Ok(())
}

/// `K=V`, or `K` for the value it has here, if any (docker-run(1)).
fn assign(sandbox: &mut Sandbox, assignment: &OsStr) -> Result<()> {
    let bytes = assignment.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (bytes, std::env::var_os(assignment)),
    };
    if name.is_empty() {
        return Err(UsageError::Assignment(assignment.to_owned()).into_error());
    }
    if let Some(value) = value {
        sandbox.env(OsStr::from_bytes(name), value);
    }
    Ok(())
}

/// Docker's format: a line is `K=V`, with nothing quoted, or `K`; blank lines and those that begin with `#`
/// say nothing.
fn env_file(path: &Path) -> Result<Vec<OsString>> {
    let failed = |why: String| UsageError::EnvFile { path: path.to_owned(), why }.into_error();
    let (bytes, _) = files::read(path, ENV_FILE).map_err(Hint::into_error)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    let mut assignments = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) || line.contains('\0') {
            return Err(failed(format!("line {} is not NAME=VALUE", number + 1)));
        }
        assignments.push(OsString::from(line));
    }
    Ok(assignments)
}

/// A better error where a program was given as source code.
pub fn explain_file(low: &Low, error: Error) -> Error {
    let Some(path) = low.file.as_deref().filter(|file| *file != "-").map(Path::new) else { return error };
    // Any size will do: only its first bytes are looked at, and a FIFO is refused.
    if files::read(path, Bytes::mib(1024)).is_ok_and(|(content, _)| content.starts_with(b"\x7fELF")) {
        return UsageError::Program { path: path.to_owned() }.into_error();
    }
    if error.hint().is_none() && !path.exists() {
        let word = path.display();
        return error.with_hint(format!(
            "FILE is source code of yours; a program that is inside is run by: fumehood run -- {word}"
        ));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: &str) -> Result<Vec<OsString>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        env_file(file.path())
    }

    #[test]
    fn an_env_file_is_read_as_docker_reads_it() {
        let text = "\u{feff}A=1\r\n# comment\n\n  B=two words \nC=\nD\nE='quoted'=x\n";
        assert_eq!(variables(text).unwrap(), ["A=1", "B=two words ", "C=", "D", "E='quoted'=x"].map(OsString::from));
        for (bad, line) in [("=x", 1), ("A=1\nB C=2", 2), ("A=\0", 1)] {
            let error = variables(bad).unwrap_err();
            assert!(error.message().ends_with(&format!(": line {line} is not NAME=VALUE")), "{error}");
        }
    }

    #[test]
    fn the_shell_has_variables_whose_names_are_its_own_business() {
        let mut sandbox = Sandbox::code("");
        assert!(assign(&mut sandbox, OsStr::new("npm_config-x=1")).is_ok());
        assert!(assign(&mut sandbox, OsStr::new("A=")).is_ok());
        assert!(assign(&mut sandbox, OsStr::new("FUMEHOOD_TEST_IS_NOT_SET")).is_ok());
        assert!(assign(&mut sandbox, OsStr::new("=1")).is_err());
        assert!(assign(&mut sandbox, OsStr::new("")).is_err());
    }

    #[test]
    fn a_program_given_as_source_code_is_told_how_to_run() {
        let low = Low { file: Some("/bin/sh".into()), ..Low::default() };
        let error = explain_file(&low, Error::new("undetected"));
        assert_eq!(
            (error.message(), error.hint()),
            ("`/bin/sh` is a program, not source code", Some("fumehood run -- /bin/sh"))
        );
        let low = Low { file: Some("/nonexistent/x".into()), ..Low::default() };
        assert!(
            explain_file(&low, Error::new("missing")).hint().is_some_and(|hint| hint.ends_with("-- /nonexistent/x"))
        );
    }
}

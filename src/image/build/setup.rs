//! Scripts: run in a sandbox on what is there so far, as root of its own, and what they changed is the layer. What they
//! write is on the disk, beside the store, until it is packed.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use super::{
    Build, BuildError, Mirror, Result, Watch,
    recipe::{Access, Plain, Variable},
};
use crate::{
    Observer, Sandbox, Verdict,
    error::Hint,
    image::{
        Ready,
        pack::{Compression, NewLayer, Options, Source, keep},
        store::Store,
    },
    launch,
    packages::{self, Registries},
    report::{Denial, DenialKind, Stream},
    request::{Mount, Rootfs, User},
};

/// Where Debian's packages come from unless a mirror is named.
const DEBIAN: [&str; 2] = ["http://deb.debian.org", "http://security.debian.org"];
/// In the sandbox, on no layer.
const SCRIPT: &str = "/fumehood/setup";
/// What is written there goes with the sandbox.
const CACHE: &str = "/tmp/cache";

/// What is run, as root of a sandbox of its own.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// For errors.
    pub what: &'static str,
    /// Of /bin/sh, or as its `#!` line says.
    pub text: &'a str,
    pub network: Access,
    /// Installs packages of a system, and cannot do without what that takes.
    pub installs: bool,
    pub env: &'a BTreeMap<Variable, Plain>,
}

impl Script<'_> {
    fn failed(&self, why: impl Into<String>, hint: Option<String>) -> BuildError {
        BuildError::Setup { what: self.what, why: why.into(), hint }
    }
}

/// Runs it on `root`; what it changed is the layer.
pub fn run(
    store: &Store,
    root: Arc<Ready>,
    build: &Build<'_>,
    script: Script<'_>,
    watch: &dyn Watch,
) -> Result<NewLayer> {
    let workshop = store.workshop()?;
    let (disk, file) = (workshop.path().join("disk"), workshop.path().join("script"));
    fs::create_dir(&disk).map_err(BuildError::io("make", &disk))?;
    fs::write(&file, script.text).map_err(BuildError::io("write", &file))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).map_err(BuildError::io("write", &file))?;

    let own = script.text.starts_with("#!");
    let mut sandbox = Sandbox::command(if own { SCRIPT } else { "/bin/sh" });
    if !own {
        sandbox.args(["-eu", SCRIPT]);
    }
    let epoch = build.epoch.to_string();
    for (name, value) in [("SOURCE_DATE_EPOCH", epoch.as_str()), ("XDG_CACHE_HOME", CACHE), ("npm_config_cache", CACHE)]
    {
        sandbox.env(name, value);
    }
    sandbox.env("PIP_NO_CACHE_DIR", "1").env("PYTHONDONTWRITEBYTECODE", "1").env("DEBIAN_FRONTEND", "noninteractive");
    for (name, value) in script.env {
        sandbox.env(&name.0, &value.0);
    }
    let user = User { uid: 0, gid: 0, asked: true };
    sandbox.rootfs(Rootfs::Image(root)).entrypoint(Vec::<String>::new()).user(user).workdir("/");
    sandbox.limits(packages::limits()).writable_on_disk(&disk).installs(script.installs || launch::has_all_ids(user));
    let mount = Mount::new(&file, Path::new(SCRIPT), false).map_err(crate::packages::PackagesError::from)?;
    sandbox.mount(mount.given());
    match script.network {
        Access::None => {}
        Access::Packages => {
            let mut registries = Registries::all();
            registries.add(build.mirror.map(Mirror::as_str).into_iter().chain(DEBIAN));
            registries.add_public(build.recipe.mirror(None).into_iter());
            packages::connect(&mut sandbox, registries, &mut |text| watch.output(text))?;
        }
        Access::Host => packages::connect_to_host(&mut sandbox, &mut |text| watch.output(text))?,
    }

    let options = Options { newest: Some(build.epoch), ..Options::new(Source::Overlay) };
    let mut layer = None;
    let done = sandbox.run_kept(None, &mut Telling(watch), |upper| {
        let packed = keep(store, Compression::Gzip, |to| {
            upper.pack(&options, to).map(drop).map_err(crate::image::pack::KeepError::from)
        });
        layer = Some(packed.map_err(Hint::into_error)?.0);
        Ok(())
    });
    let done = done.map_err(|error| script.failed(error.message(), error.hint().map(str::to_owned)))?;
    if let Some(error) = done.error {
        return Err(script.failed(error.message, error.hint));
    }
    match (done.verdict, layer) {
        (Verdict::Ok, Some(layer)) => Ok(layer),
        (Verdict::Ok, None) => Err(script.failed("what it wrote was not kept", None)),
        (Verdict::Failed, _) => {
            Err(script.failed(format!("it failed with status {}", done.exit_code.unwrap_or(0)), None))
        }
        (verdict, _) => Err(script.failed(format!("{verdict:?}").to_lowercase(), None)),
    }
}

struct Telling<'a>(&'a dyn Watch);

impl Observer for Telling<'_> {
    fn output(&mut self, _stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.0.output(&packages::harmless(bytes));
        Ok(())
    }

    fn denied(&mut self, denial: &Denial) -> io::Result<()> {
        if denial.kind == DenialKind::Network {
            self.0.output(&format!("fumehood: denied: connection to {} ({})\n", denial.target, denial.rule));
        }
        Ok(())
    }
}
